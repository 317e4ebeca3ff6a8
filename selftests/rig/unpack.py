#!/usr/bin/env python3
"""unpack.py DATA DIR: write the files of a data port ("FILE name bytes", newline, the bytes) below DIR."""
import os
import sys

data = open(sys.argv[1], "rb").read()
pos = 0
while pos < len(data):
    end = data.find(b"\n", pos)
    word = data[pos:end].split() if end >= 0 else []
    if len(word) != 3 or word[0] != b"FILE":
        sys.exit(f"{sys.argv[1]}: no header at byte {pos}")
    name = os.path.normpath("/" + word[1].decode()).lstrip("/")
    path = os.path.join(sys.argv[2], name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    start, size = end + 1, int(word[2])
    with open(path, "wb") as f:
        f.write(data[start:start + size])
    pos = start + size
