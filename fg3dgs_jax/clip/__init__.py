"""The processed folder: its format, reading, packing. The only room that knows its files."""
