"""Things to say in many languages: numbers, common words and syllables without meaning.

Syllables cover a language's sounds evenly, words give it its rhythm.
"""

from typing import NamedTuple

import numpy as np


class Language(NamedTuple):
    """How a language is written, for syllables without meaning, and some of its words."""

    voice: str  # espeak-ng's name
    onsets: str  # separated by spaces
    vowels: str
    codas: str
    words: str
    separator: str = " "  # between syllables' words


LANGUAGES = {
    "en": Language(
        "en-us",
        "b p m f v w th t d s z sh ch j k g l r n y h st pl br fl tr sw sm gr qu",
        "a e i o u ee oo ay ow igh oa aw ar or er oy",
        " m n t d l s p f v k b sh ng nt st th ve me",
        "about above after again always apple baby back bath beautiful because before believe "
        "big "
        "bird blue boat book both bottle boy bread bring brother build busy but by call came "
        "chair change child church city clear close cold come could country cow day deep "
        "different "
        "do dog door down dream early east easy eight enough even evening every eye face fall "
        "family far farm father feather few field fifty find fire first fish five floor follow "
        "food foot for forest four friend from garden give go good great green group grow half "
        "hand happy have he head hear heavy help her high hope horse hour house how hundred idea "
        "if important in island it join joy jump just keep kind know language large laugh leave "
        "left life light little live long look love machine make man map many market may "
        "maybe me "
        "mean measure meeting milk million minute money month moon more morning mother mountain "
        "mouth move much music my name near never new night no north nothing now number ocean "
        "of often old on one only open or other our out over own page paper part people perhaps "
        "picture place plan play please point poor possible power pretty public pull put "
        "question "
        "quick quiet quite rain reach read ready really red remember rest right river road room "
        "round rule run said same say school sea second see seven shape she ship shoe short show "
        "side simple since sister six sleep slow small smile snow so some song soon sound south "
        "speak spring stand star stay step still stone story street strong summer sun sure table "
        "take talk tell than that the their them then there these they thing think this thousand "
        "three through time to today together tomorrow too town travel tree true try turn twelve "
        "two under until up us use usually valley very village visit voice wait walk wall want "
        "warm was watch water way we week well were west what when where which while white who "
        "why wide will wind window winter with woman wonder wood word work world would write "
        "year yellow yes yet you young your",
    ),
    "fr": Language(
        "fr",
        "b p m f v t d s z ch j c g l r n br pl tr cr fl",
        "a e i o u ou eu on an in é è oi ui au",
        " r l m s t c ve che ne me be",
        "bonjour madame monsieur aujourd'hui demain avant après beaucoup toujours jamais "
        "peut-être "
        "maison fenêtre porte chemin montagne rivière bateau poisson oiseau cheval jardin fleur "
        "pomme pain vin beurre fromage matin midi soir semaine mois année enfant femme homme "
        "famille père mère frère sœur ami vie monde ville village rue école livre page papier "
        "parler manger boire venir vouloir pouvoir faire voir savoir prendre ouvrir fermer petit "
        "grand bleu blanc rouge vert jaune vieux jeune bon mauvais nouveau premier dernier nous "
        "vous ils elles mon notre pour avec sans dans sur sous entre lumière musique voyage",
    ),
    "de": Language(
        "de",
        "b p m f w pf t d s z sch ch k g l r n h j br pl fr tr schw st sp",
        "a e i o u ä ö ü ei au eu ie aa ee oo",
        " n m r l s t ch f b ng st pf nd",
        "guten morgen abend heute gestern vielleicht immer niemals wasser feuer himmel wolke "
        "baum "
        "blume apfel birne brot butter milch haus fenster tür straße stadt dorf schule buch "
        "papier "
        "mutter vater bruder schwester kind freund leben welt woche monat jahr stunde minute "
        "sonne "
        "mond stern fluss brücke berg wald vogel fisch pferd katze hund groß klein schön jung "
        "alt "
        "neu blau grün gelb weiß schwarz sprechen gehen kommen machen wollen können müssen "
        "schreiben lesen hören sehen öffnen schließen über unter zwischen für mit ohne wir ihr "
        "möglich fröhlich wunderbar zukunft gebäude europa",
    ),
    "es": Language(
        "es",
        "b p m f v t d s ch j c g l r n ll br pl tr fl",
        "a e i o u ue ie ai",
        " n s r l",
        "buenos días mañana ayer siempre nunca quizás agua fuego cielo nube árbol flor "
        "manzana pan "
        "leche casa ventana puerta calle ciudad pueblo escuela libro papel madre padre hermano "
        "hermana niño amigo vida mundo semana mes año hora minuto sol luna estrella río puente "
        "montaña bosque pájaro pez caballo gato perro grande pequeño bonito joven viejo nuevo "
        "azul "
        "verde amarillo blanco negro hablar ir venir hacer querer poder escribir leer oír ver "
        "abrir cerrar sobre bajo entre para con sin nosotros ustedes posible maravilloso futuro",
    ),
    "it": Language(
        "it",
        "b p m f v t d s z c ch gi g l r n gn gli br pl tr",
        "a e i o u ia uo",
        " n r l",
        "buongiorno domani ieri sempre mai forse acqua fuoco cielo nuvola albero fiore mela pane "
        "latte casa finestra porta strada città paese scuola libro carta madre padre fratello "
        "sorella bambino amico vita mondo settimana mese anno ora minuto sole luna stella fiume "
        "ponte montagna bosco uccello pesce cavallo gatto cane grande piccolo bello giovane "
        "vecchio nuovo azzurro verde giallo bianco nero parlare andare venire fare volere potere "
        "scrivere leggere sentire vedere aprire chiudere sopra sotto tra per con senza noi voi",
    ),
    "pt": Language(
        "pt-br",
        "b p m f v t d s z ch j c g l r n lh nh br pl tr",
        "a e i o u ão ei ou ã õe",
        " s r l m",
        "bom dia amanhã ontem sempre nunca talvez água fogo céu nuvem árvore flor maçã pão leite "
        "casa janela porta rua cidade aldeia escola livro papel mãe pai irmão irmã menino amigo "
        "vida mundo semana mês ano hora minuto sol lua estrela rio ponte montanha floresta "
        "pássaro "
        "peixe cavalo gato cachorro grande pequeno bonito jovem velho novo azul verde amarelo "
        "branco preto falar ir vir fazer querer poder escrever ler ouvir ver abrir fechar sobre",
    ),
    "ru": Language(
        "ru",
        "б п м ф в т д с з ш ж ч щ к г х л р н й бр пл",
        "а э и о у ы я е ё ю",
        " н м т с л р п в к",
        "доброе утро вечер завтра вчера всегда никогда вода огонь небо облако дерево цветок "
        "яблоко "
        "хлеб молоко дом окно дверь улица город деревня школа книга бумага мать отец брат сестра "
        "ребёнок друг жизнь мир неделя месяц год час минута солнце луна звезда река мост гора "
        "лес "
        "птица рыба лошадь кошка собака большой маленький красивый молодой старый новый синий "
        "зелёный жёлтый белый чёрный говорить идти делать хотеть писать читать слышать видеть",
    ),
    "ar": Language(
        "ar",
        "ب م ف و ت د س ز ش ج ك ق ل ر ن ه ح ع خ غ ص ض ط ث ذ ي",
        "َ ِ ُ َا ِي ُو",
        " ن م ر ل",
        "صَبَاح مَسَاء غَدًا دَائِمًا مَاء نَار سَمَاء شَجَرَة وَرْدَة تُفَّاحَة خُبْز حَلِيب "
        "بَيْت بَاب شَارِع مَدِينَة مَدْرَسَة كِتَاب وَرَق أُمّ "
        "أَب أَخ طِفْل صَدِيق حَيَاة عَالَم أُسْبُوع شَهْر سَنَة سَاعَة شَمْس قَمَر نَجْم "
        "نَهْر جِسْر جَبَل غَابَة حِصَان كَبِير صَغِير",
    ),
    "zh": Language(
        "cmn-latn-pinyin",
        "b p m f d t n l g k h j q x zh ch sh r z c s y w",
        "a1 o3 e2 ai4 ei2 ao3 ou1 an2 en4 ang1 eng3 i4 u2 ü3 ia1 ie2 uo4 ui3 in2 ing4 ong1",
        " ",
        "ni3hao3 xie4xie4 ming2tian1 jin1tian1 shui3 huo3 tian1 shu4 hua1 ping2guo3 mian4bao1 "
        "niu2nai3 "
        "fang2zi5 chuang1hu5 men2 jie1 cheng2shi4 xue2xiao4 shu1 ma1ma5 ba4ba5 peng2you3 "
        "shi4jie4 "
        "yue4liang4 xing1xing5 he2 qiao2 shan1 sen1lin2 niao3 yu2 ma3 mao1 gou3 da4 xiao3 "
        "piao4liang4 "
        "lan2 lü4 huang2 bai2 hei1 shuo1 zou3 lai2 zuo4 xie3 kan4 ting1 wo3men5",
    ),
    "ko": Language(
        "ko",
        "",
        "",
        "",
        "오늘 내일 물 불 하늘 나무 꽃 사과 빵 우유 집 문 길 학교 책 종이 친구 세계 바람",
    ),
    "ja": Language(
        "ja",
        "",
        "",
        "",
        "おはよう こんばんは みず ひ そら き はな りんご ぱん "
        "まど みち まち がっこう ほん かみ ともだち せかい",
    ),
    "pl": Language(
        "pl",
        "b p m f w t d s z sz ż cz ć k g l ł r n br pl",
        "a e i o u y ą ę ó",
        " n m t ł r sz",
        "dzień dobry jutro zawsze woda ogień niebo drzewo kwiat jabłko chleb mleko dom okno "
        "ulica "
        "miasto szkoła książka matka ojciec brat życie świat słońce księżyc rzeka most ptak",
    ),
    "tr": Language(
        "tr",
        "b p m f v t d s z ş ç c k g l r n y h",
        "a e i o u ü ö ı",
        " n m r l k t",
        "günaydın yarın bugün su ateş gökyüzü ağaç çiçek elma ekmek süt ev pencere sokak "
        "şehir okul "
        "kitap anne baba kardeş dünya güneş köprü büyük küçük güzel mavi yeşil beyaz siyah",
    ),
}
_KANA = (
    "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわん"
    "がぎぐげござじずぜぞだでどばびぶべぼぱぴぷぺぽ"
)


def text(language: str, num_words: int, rng: np.random.Generator) -> str:
    """Words, numbers and syllables without meaning, with commas and an end.

    Args:
      language: a key of `LANGUAGES`.
      num_words: about so many.
      rng: chooses them.
    """
    entry = LANGUAGES[language]
    known = entry.words.split()
    out = []
    for k in range(num_words):
        kind = rng.uniform()
        # Arabic numbers make espeak-ng 1.51 read memory that it did not write.
        if kind < 0.12 and language != "ar":
            word = str(rng.integers(0, rng.choice([20, 100, 2000])))
        elif kind < 0.42:
            word = _pseudo_word(language, entry, rng)
        else:
            word = known[rng.integers(len(known))]
        comma = k + 1 < num_words and rng.uniform() < 0.1
        out.append(word + ("," if comma else ""))
    return " ".join(out) + str(rng.choice([".", ".", "!", "?"]))


def _pseudo_word(language, entry, rng):
    count = rng.integers(1, 4)
    if language == "ja":
        return "".join(rng.choice(list(_KANA), size=count + 1))
    if language == "ko":  # 19 onsets x 21 vowels x 28 codas, in that order
        return "".join(_hangul(rng) for _ in range(count))
    onsets, vowels, codas = (part.split(" ") for part in entry[1:4])
    syllables = (rng.choice(onsets) + rng.choice(vowels) for _ in range(count))
    return "".join(syllables) + ("" if language == "zh" else rng.choice(codas))


def _hangul(rng):
    coda = rng.choice([0, 0, 0, 4, 8, 16, 17, 21])
    return chr(0xAC00 + (rng.integers(19) * 21 + rng.integers(21)) * 28 + coda)
