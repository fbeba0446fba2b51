"""Whatever comes in (a video, another system's folder) becomes a processed folder."""
