"""What a file without the GGUF magic is, and what to do about it."""

from __future__ import annotations

_OLD_FORMAT = "get a GGUF version, or convert the original model again"
_UNPACK = "unpack it first"
_CONVERT = "convert it with llama.cpp's convert_hf_to_gguf.py"
_EXTRACT = "extract the GGUF file that a llamafile carries"
_UNFINISHED = "probably an unfinished download: get it again"
_NAME_IT = "name the .gguf file, or get it again"
_DOWNLOAD_AGAIN = (
    "the model was not downloaded, perhaps for want of a login or a licence agreement: get it again"
)

#: First bytes, what has them, and what to do.
_SIGNATURES = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer",
     "fetch the model itself with `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer", "fetch the model itself with `git annex get`"),
    (b"lmgg", "a model in the ggml format of before August 2023", _OLD_FORMAT),
    (b"fmgg", "a model in the ggmf format of before August 2023", _OLD_FORMAT),
    (b"tjgg", "a model in the ggjt format of before August 2023", _OLD_FORMAT),
    (b"algg", "an adapter in the ggla format of before August 2024", _OLD_FORMAT),
    (b"PK\x03\x04", "a zip archive (PyTorch checkpoint, or a llamafile's container)",
     "take the GGUF file out of it, or convert the checkpoint"),
    (b"MZ", "a Windows program or a llamafile", _EXTRACT),
    (b"\x7fELF", "a program (ELF), perhaps a llamafile", _EXTRACT),
    (b"\x1f\x8b", "gzip-compressed data", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data", _UNPACK),
    (b"BZh", "bzip2-compressed data", _UNPACK),
    (b"\xfd7zXZ", "xz-compressed data", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", _UNPACK),
    (b"\x80\x02", "a Python pickle (PyTorch checkpoint)", _CONVERT),
)  # fmt: skip

#: The same for text, in lower case, behind white space.
_TEXTS = (
    (b"<!doctype html", "an HTML page", _DOWNLOAD_AGAIN),
    (b"<html", "an HTML page", _DOWNLOAD_AGAIN),
    (b"<?xml", "an XML document", _DOWNLOAD_AGAIN),
    (b"{", "JSON text (a configuration, an index, or a server's error)", _NAME_IT),
    (b"[", "JSON text (a configuration, an index, or a server's error)", _NAME_IT),
)


def described(start: bytes) -> str:
    """What a file is by its first bytes, up to 512 of them, and what to do, as one sentence."""
    found, advice = _found(start)
    return f"found {found}, expected a GGUF file: {advice}"


def _found(start: bytes) -> tuple[str, str]:
    text = start.lstrip(b" \t\r\n").lower()
    # A safetensors file starts with the 64-bit length of its JSON header.
    length, brace = int.from_bytes(start[:8], "little"), start[8:9]
    kinds = [
        *((start.startswith(first), found, advice) for first, found, advice in _SIGNATURES),
        (len(start) >= 10 and brace == b"{" and length < 2**32, "a safetensors file", _CONVERT),
        *((text.startswith(first), found, advice) for first, found, advice in _TEXTS),
        (start[257:262] == b"ustar", "a tar archive", _UNPACK),
        (not start, "an empty file", "get it again"),
        (not start.strip(b"\0"), "zero bytes at the start", _UNFINISHED),
        (True, f'a file starting with "{escaped(start[:4])}"', _NAME_IT),
    ]
    return next((found, advice) for holds, found, advice in kinds if holds)


def escaped(stored: bytes) -> str:
    """Bytes as text of one line: all but printable ASCII as hexadecimal escapes."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in stored)
