"""The one clock that pictures and sound run on."""

FPS = 25  # frames a second
SAMPLE_RATE = 16_000  # samples a second
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
