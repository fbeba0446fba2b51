"""Downloads from a server of the test's own, which cuts, lies and forgets what ranges are."""

import dataclasses
import hashlib
import http.server
import io
import threading
import zipfile

import numpy as np
import pytest

from fg3dgs_jax.experts import __main__ as program
from fg3dgs_jax.weights import download, store

CONTENT = np.random.default_rng(0).bytes(300_000)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, path -> bytes; see `server` for how it misbehaves."""

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append((self.path, asked))
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and server.ranges and start >= len(content):
            self.send_error(416)
            return
        start = start if server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        if server.announces:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        piece = server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start : start + piece])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server in a thread; `address` is where it is."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.files, server.asked, server.cuts = {"/toy.bin": CONTENT}, [], []
    server.ranges = server.announces = True  # cuts: bytes after which it hangs up, per request
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def register(server, monkeypatch, tmp_path):
    """Puts a row for the server's file in place of the registry; the cache is empty."""
    row = store.WeightFile(
        name="toy",
        filename="toy.bin",
        urls=(f"{server.address}/toy.bin",),
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="MIT",
        what="a toy",
    )
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("FG3DGS_WEIGHTS", raising=False)

    def register(**changes):
        monkeypatch.setattr(store, "REGISTRY", {"toy": dataclasses.replace(row, **changes)})

    register()
    return register


def _cached(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}


def _fails(match):
    with pytest.raises(store.WeightsMissing, match=match) as error:
        store.fetch("toy")
    assert "\n" not in str(error.value)


def test_a_cut_connection_is_taken_up_where_it_ended(server, register, tmp_path):
    server.cuts = [100_000, 50_000]
    store.fetch("toy")
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert _cached(tmp_path) == {"toy.bin": CONTENT}


def test_a_later_fetch_goes_on_too(server, register, tmp_path):
    server.cuts = [100_000, 0]  # the second time nothing comes: it is no use now
    _fails("ended after 100000 of 300000 bytes")
    assert _cached(tmp_path) == {".toy.bin.part": CONTENT[:100_000]}
    store.fetch("toy")
    assert [asked for _, asked in server.asked] == [None] + 2 * ["bytes=100000-"]
    assert _cached(tmp_path) == {"toy.bin": CONTENT}


def test_a_server_without_ranges_starts_again(server, register, tmp_path):
    server.ranges, server.cuts = False, [100_000]
    store.fetch("toy")
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-"]
    assert _cached(tmp_path) == {"toy.bin": CONTENT}


def test_a_server_that_announces_nothing_is_held_to_the_registered_size(server, register, tmp_path):
    server.announces, server.cuts = False, [100_000]
    store.fetch("toy")
    assert _cached(tmp_path) == {"toy.bin": CONTENT}


@pytest.mark.parametrize("part", [b"wrong" * 1000, CONTENT + b"more", CONTENT[:-1] + b"?", b""])
def test_the_beginning_of_another_file_costs_one_more_try(server, register, tmp_path, part):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".toy.bin.part").write_bytes(part)
    store.fetch("toy")
    assert server.asked[-1] == ("/toy.bin", None)
    assert _cached(tmp_path) == {"toy.bin": CONTENT}


def test_a_beginning_longer_than_the_servers_file_is_dropped(server, register, tmp_path):
    register(size=0)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".toy.bin.part").write_bytes(CONTENT + b"more")
    store.fetch("toy")
    assert _cached(tmp_path) == {"toy.bin": CONTENT}


@pytest.mark.parametrize("content", [b"?" + CONTENT[1:], CONTENT + b"more", CONTENT[:-1], b""])
@pytest.mark.parametrize("announces", [True, False])
def test_another_file_is_refused_and_gone(server, register, tmp_path, content, announces):
    server.files["/toy.bin"], server.announces = content, announces
    _fails("refused|longer|connection ended")
    short = not announces and len(content) < len(CONTENT)  # it might as well have been cut off
    assert _cached(tmp_path).keys() == ({".toy.bin.part"} if short else set())


def test_the_second_source_is_asked_where_the_first_has_nothing(server, register, tmp_path):
    address = server.address
    server.files["/other.bin"] = b"another one"
    register(urls=(f"{address}/gone.bin", f"{address}/other.bin", f"{address}/toy.bin"))
    store.fetch("toy")
    assert [path for path, _ in server.asked] == ["/gone.bin", "/other.bin", "/toy.bin"]
    register(urls=(f"{address}/gone.bin", "http://127.0.0.1:1/toy.bin"), filename="toy2.bin")
    _fails(r"gone.bin: HTTP Error 404.*127.0.0.1:1/toy.bin: ")


def test_your_own_address_is_the_only_one_asked_and_verified_alike(
    server, register, tmp_path, capsys
):
    server.files |= {"/mine": CONTENT, "/not_mine": CONTENT[::-1]}
    assert program.main(["fetch", "toy", "--url", f"{server.address}/not_mine"]) == 1
    assert program.main(["fetch", "toy", "--url", f"{server.address}/mine"]) == 0
    assert [path for path, _ in server.asked] == ["/not_mine", "/mine"]
    assert program.main(["fetch", "toy", "toy", "--url", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.count("error: ") == 2


def test_without_a_digest_two_halves_are_never_joined(server, register, tmp_path):
    register(sha256="")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".toy.bin.part").write_bytes(b"?" * 100)
    store.fetch("toy")
    assert server.asked == [("/toy.bin", None)]
    assert _cached(tmp_path) == {"toy.bin": CONTENT}


def test_a_file_in_a_zip_is_unpacked_and_verified(server, register, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("models/toy.bin", CONTENT)
    server.files["/toy.bin.zip"] = packed.getvalue()
    register(urls=(f"{server.address}/toy.bin.zip",))
    server.cuts = [100_000]
    store.fetch("toy")
    assert len(server.asked) == 2 and server.asked[1][1] == "bytes=100000-"
    assert _cached(tmp_path) == {"toy.bin": CONTENT}
    for name, content in (("toy2.bin", packed.getvalue()), ("toy3.bin", b"no zip")):
        server.files["/toy.bin.zip"] = content
        register(urls=(f"{server.address}/toy.bin.zip",), filename=name)
        _fails("the zip does not hold")
    assert _cached(tmp_path) == {"toy.bin": CONTENT}


def test_a_row_may_have_a_folder_of_its_own(server, register, tmp_path):
    register(filename="large/model.safetensors")
    path = store.fetch("toy")
    assert path == tmp_path / "cache" / "large" / "model.safetensors"
    assert store.find("toy") == store.find("large/model.safetensors") == path
    with pytest.raises(store.WeightsMissing, match="no weights are called"):
        store.find("model.safetensors")
