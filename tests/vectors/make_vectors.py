# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the test vectors anew: keys, session keys and values, all computed by CryptoAPI.

    make -C tests/lab/src
    python3 tests/vectors/make_vectors.py [--prefix FOLDER] [--exe iiscrypt.exe] [--wine wine]

It runs iiscrypt.exe under Wine in a prefix of its own and writes vectors.json beside this file. The outcome of every
operation, errors included, is CryptoAPI's. Only the CNG values are computed by the openssl command line instead
(``openssl kdf`` and ``openssl enc``), because Wine has no such keys, and once more by the lab's stand-in for
cngkeyhelper.dll, which is written in C. All keys are test keys: never use them for anything else.

``--cng-stand-in`` makes the values of the stand-in anew and leaves the rest of vectors.json as it is."""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import os
import re
import secrets
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE.parent / "lab" / "files" / "applicationHost.config"

TEXTS = {
    "empty": "",
    "one character": "x",
    "a password": "P@ssw0rd-1 mit Umlaut äöü",
    "15 bytes of room": "1234567",
    "surrogate pairs": "🔑 key 𝄞 clef",
    "chinese": "密码应该很长",
    "markup": '<a href="x">&amp;\'',
    "long": "long text 0123456789 " * 40,
}

KEYS = {
    "TestKey1024": 1024,
    "TestKey2048": 2048,
    "TestKey4096": 4096,
    "TestKeyOther": 2048,
}


class Oracle:
    """iiscrypt.exe in batch mode: a list of commands in, a list of answers out."""

    def __init__(self, wine: str, exe: Path, prefix: Path) -> None:
        self.command = [wine, str(exe), "batch"]
        self.environment = dict(os.environ, WINEPREFIX=str(prefix), WINEDEBUG="-all", WINEDLLOVERRIDES="mshtml=")
        self.environment.pop("DISPLAY", None)

    def run(self, lines: list[str]) -> list[str]:
        """One answer per line, "OK result" or "ERROR 0x........ operation"."""
        done = subprocess.run(
            self.command,
            input=("\n".join(lines) + "\n").encode(),
            capture_output=True,
            env=self.environment,
            check=False,
            timeout=600,
        )
        answers = done.stdout.decode().splitlines()
        if len(answers) != len(lines):
            sys.exit(f"{len(lines)} commands, {len(answers)} answers: {done.stderr.decode()[-500:]}")
        return answers

    def ask(self, lines: list[str]) -> list[str]:
        """The results; any error ends the program."""
        answers = self.run(lines)
        for line, answer in zip(lines, answers, strict=True):
            if not answer.startswith("OK"):
                sys.exit(f"{line[:80]}: {answer}")
        return [answer[3:] for answer in answers]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def argument(data: bytes) -> str:
    return "@" + b64(data)


def given(text: str) -> str:
    """Base64 text as what a command of the batch reads: its standard input is base64 there once more."""
    return argument(text.encode("ascii"))


def outcome(answer: str) -> dict[str, str]:
    if answer.startswith("OK"):
        return {"text": answer[3:]}
    return {"error": answer.split()[1], "operation": " ".join(answer.split()[2:])}


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=data, stdout=subprocess.PIPE, check=True).stdout


def cng_value(secret: bytes, text: str, fill: str) -> bytes:
    """A value in the layout of AppPoolCredDecrypt: IV, 32 bytes, AES-256-CBC under the derived key."""
    key = openssl(
        *("kdf", "-keylen", "32", "-binary", "-kdfopt", "mac:HMAC", "-kdfopt", "digest:SHA256"),
        *("-kdfopt", "hexkey:" + secret.hex()),
        *("-kdfopt", "hexsalt:" + "EncryptionLabel\0".encode("utf-16-le").hex()),
        *("-kdfopt", "hexinfo:" + "EncryptionContext\0".encode("utf-16-le").hex()),
        "KBKDF",
    )
    # SHA-256 of the text: what the stand-in for cngkeyhelper.dll checks. What IIS writes there is not published.
    check = hashlib.sha256(text.encode("utf-16-le")).digest()
    clear = text.encode("utf-16-le") + b"\0\0"
    count = 16 - len(clear) % 16
    clear += bytes([count]) * count if fill == "pkcs" else bytes(count % 16)
    iv = secrets.token_bytes(16)
    cipher = openssl("enc", "-aes-256-cbc", "-K", key.hex(), "-iv", iv.hex(), "-nopad", data=clear)
    return iv + check + cipher


def make(oracle: Oracle) -> dict[str, Any]:
    names = list(KEYS)
    oracle.run([f"delete {name}" for name in names])  # left over from an interrupted run
    oracle.ask([f"create {name} {bits} exportable" for name, bits in KEYS.items()])
    try:
        return collect(oracle, names)
    finally:
        oracle.run([f"delete {name}" for name in names])


def collect(oracle: Oracle, names: list[str]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name in names:
        private, public, plain, mark = oracle.ask(
            [f"export {name} private", f"export {name} public", f"publickey {name}", f"fingerprint {name}"]
        )
        bits, modulus, exponent = plain.split()
        keys[name] = {
            "private": private,
            "public": public,
            "bits": int(bits),
            "modulus": modulus,
            "exponent": exponent,
            "fingerprint": mark,
        }

    sessions: dict[str, Any] = {}
    for name in names:
        for form in ("", "oaep"):
            for bits in (128, 192, 256) if name == "TestKey2048" else (128,):
                (wrapped,) = oracle.ask([f"sessionkey {name} {form} {bits}"])
                (clear,) = oracle.ask([f"unwrap {name} {wrapped} {form}"])
                label = f"{name} {form or 'v1.5'} AES-{bits}"
                sessions[label] = {"key": name, "oaep": form == "oaep", "wrapped": wrapped, "unwrapped": clear}

    aes = []
    for label, session in sessions.items():
        form = "oaep" if session["oaep"] else ""
        for title, text in TEXTS.items():
            if title != "a password" and not label.startswith("TestKey2048 v1.5 AES-128"):
                continue
            (value,) = oracle.ask(
                [f"encrypt aes {session['key']} {session['wrapped']} {form} {argument(text.encode())}"]
            )
            (raw,) = oracle.ask([f"rawdecrypt aes {session['key']} {session['wrapped']} {form} {given(value)}"])
            aes.append({"title": title, "session": label, "text": text, "value": value, "raw": raw})

    rsa = []
    for name in names:
        for title, text in TEXTS.items():
            for extra in ("", "nul", "prefix nul"):
                if len(text.encode("utf-16-le")) + 6 > KEYS[name] // 8 - 11:
                    continue
                if extra and name != "TestKey2048":
                    continue
                (value,) = oracle.ask([f"encrypt rsa {name} {extra} {argument(text.encode())}"])
                rsa.append({"title": title, "key": name, "extra": extra, "text": text, "value": value})
    (refused,) = oracle.run([f"encrypt rsa TestKey1024 {argument(TEXTS['long'].encode())}"])

    cng_cases = cng()
    return {
        "remark": "Test keys, made by make_vectors.py through CryptoAPI. Never use them for anything else.",
        "keys": keys,
        "sessions": sessions,
        "aes": aes,
        "rsa": rsa,
        "rsa_too_long": outcome(refused),
        "wrong": wrong(oracle, sessions, aes, rsa),
        "layout": layouts(oracle, sessions),
        "cng": cng_cases,
        "configuration": configuration(oracle, base64.b64decode(cng_cases["secret"])),
    }


def wrong(
    oracle: Oracle, sessions: dict[str, Any], aes: list[dict[str, Any]], rsa: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Things that do not open, with what CryptoAPI says about them."""
    home = "TestKey2048 v1.5 AES-128"
    foreign = "TestKeyOther v1.5 AES-128"
    value = next(v for v in aes if v["session"] == home and v["title"] == "a password")["value"]
    block = next(v for v in rsa if v["key"] == "TestKey2048" and v["title"] == "a password" and not v["extra"])["value"]
    wrapped = base64.b64decode(sessions[home]["wrapped"])
    raw = base64.b64decode(value)
    flipped = bytearray(base64.b64decode(block))
    flipped[40] ^= 1
    altered = bytearray(wrapped)
    altered[100] ^= 1
    cases: list[tuple[str, str, str, str, bool, bytes]] = [
        # title, kind, key, sessionKey, oaep, data
        ("session key of another RSA key", "aes", "TestKeyOther", b64(wrapped), False, raw),
        ("session key of a shorter RSA key", "aes", "TestKey1024", b64(wrapped), False, raw),
        ("session key altered", "aes", "TestKey2048", b64(bytes(altered)), False, raw),
        ("session key cut off", "aes", "TestKey2048", b64(wrapped[:-16]), False, raw),
        (
            "session key with an unknown algorithm",
            "aes",
            "TestKey2048",
            b64(wrapped[:4] + b"\x01\x68" + wrapped[6:]),
            False,
            raw,
        ),
        ("session key with OAEP demanded", "aes", "TestKey2048", b64(wrapped), True, raw),
        ("value of another session key", "aes", foreign.split()[0], sessions[foreign]["wrapped"], False, raw),
        ("value cut within a block", "aes", "TestKey2048", b64(wrapped), False, raw[:-3]),
        ("value cut by a block", "aes", "TestKey2048", b64(wrapped), False, raw[:-16]),
        (
            "value with an altered last block",
            "aes",
            "TestKey2048",
            b64(wrapped),
            False,
            raw[:-1] + bytes([raw[-1] ^ 0x55]),
        ),
        ("direct value of another key", "rsa", "TestKeyOther", "", False, base64.b64decode(block)),
        ("direct value altered", "rsa", "TestKey2048", "", False, bytes(flipped)),
        ("direct value cut off", "rsa", "TestKey2048", "", False, base64.b64decode(block)[:-1]),
    ]
    lines = []
    for _title, kind, key, session, oaep, data in cases:
        lines.append(f"decrypt {kind} {key} {session} {'oaep' if oaep else ''} {given(b64(data))}")
    answers = oracle.run(lines)
    return [
        {
            "title": title,
            "kind": kind,
            "key": key,
            "session_key": session,
            "oaep": oaep,
            "value": b64(data),
            "cryptoapi": outcome(answer),
        }
        for (title, kind, key, session, oaep, data), answer in zip(cases, answers, strict=True)
    ]


def layouts(oracle: Oracle, sessions: dict[str, Any]) -> list[dict[str, Any]]:
    """Plaintexts chosen byte by byte, encrypted by CryptoAPI: what the strict judgement has to tell apart."""
    session = sessions["TestKey2048 v1.5 AES-128"]
    text = "abc".encode("utf-16-le")
    cases = [
        ("no tail", "ok", b"\x01\x02\x03\x04" + text + b"\0\0"),
        ("tail of 15", "ok", b"\x01\x02\x03\x04" + text + b"\0\0" + bytes(range(1, 16))),
        ("tail of 16", "garbage", b"\x01\x02\x03\x04" + text + b"\0\0" + bytes(range(1, 17))),
        ("no end", "garbage", b"\x01\x02\x03\x04" + text),
        ("end not aligned", "garbage", b"\x01\x02\x03\x04" + b"a\0\x01\0\0b\x01\x02\x03\x04"),
        ("lone high surrogate", "garbage", b"\x01\x02\x03\x04" + b"\x3d\xd8a\0" + b"\0\0"),
        ("lone low surrogate", "garbage", b"\x01\x02\x03\x04" + b"\x00\xdca\0" + b"\0\0"),
        ("control character", "garbage", b"\x01\x02\x03\x04" + b"a\0\x07\0" + b"\0\0"),
        ("delete character", "garbage", b"\x01\x02\x03\x04" + b"a\0\x7f\0" + b"\0\0"),
        ("C1 control character", "garbage", b"\x01\x02\x03\x04" + b"a\0\x85\0" + b"\0\0"),
        ("noncharacter FFFE", "garbage", b"\x01\x02\x03\x04" + b"\xfe\xff" + b"\0\0"),
        ("noncharacter FDD0", "garbage", b"\x01\x02\x03\x04" + b"\xd0\xfd" + b"\0\0"),
        ("noncharacter 1FFFF", "garbage", b"\x01\x02\x03\x04" + "\U0001ffff".encode("utf-16-le") + b"\0\0"),
        ("zero in the random prefix", "ok", b"\0\0\0\0" + text + b"\0\0"),
        ("too short", "garbage", b"\x01\x02"),
    ]
    wrapped = session["wrapped"]
    answers = oracle.ask([f"rawencrypt aes {session['key']} {wrapped} {given(b64(data))}" for _t, _v, data in cases])
    return [{"title": t, "verdict": v, "value": value} for (t, v, _d), value in zip(cases, answers, strict=True)]


def cng() -> dict[str, Any]:
    secret = secrets.token_bytes(32)
    found = []
    for title, text in TEXTS.items():
        for fill in ("pkcs", "zero"):
            found.append({"title": title, "fill": fill, "text": text, "value": b64(cng_value(secret, text, fill))})
    return {"secret": b64(secret), "other_secret": b64(secrets.token_bytes(32)), "cases": found}


def cng_stand_in(oracle: Oracle, exe: Path, prefix: Path) -> dict[str, Any]:
    """Values that the stand-in for cngkeyhelper.dll encrypted under a raw key in a file named as the real one."""
    container = "iisCngWasKey"
    oracle.run(["exists TestKey1024"])  # makes the prefix, and with it the machine GUID
    guid = subprocess.run(
        [oracle.command[0], "reg", "query", r"HKLM\SOFTWARE\Microsoft\Cryptography", "/v", "MachineGuid"],
        env=oracle.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[-1]
    shutil.copy(exe.parent / "cngkeyhelper.dll", prefix / "drive_c" / "windows" / "system32")
    secret = secrets.token_bytes(32)
    digest = hashlib.md5(f"{container.lower()}\0".encode("utf-16-le"), usedforsecurity=False).digest()
    name = "".join(f"{word:08x}" for word in struct.unpack("<4I", digest))
    folder = prefix / "drive_c" / "ProgramData" / "Microsoft" / "Crypto" / "Keys"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}_{guid}").write_bytes(b"LABKDF1\0" + secret)
    values = oracle.ask([f"encrypt cng {container} {argument(text.encode())}" for text in TEXTS.values()])
    cases = [
        {"title": title, "text": text, "value": value}
        for (title, text), value in zip(TEXTS.items(), values, strict=True)
    ]
    return {"secret": b64(secret), "cases": cases}


def configuration(oracle: Oracle, secret: bytes) -> dict[str, Any]:
    """What stands for the markers of the lab's configuration file on a server with two of the keys above."""
    keys = {"iisWasKey": "TestKey2048", "iisConfigurationKey": "TestKey4096"}
    of_provider = {
        "IISWASOnlyRsaProvider": "iisWasKey",
        "IISWASOnlyAesProvider": "iisWasKey",
        "AesProvider": "iisConfigurationKey",
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    filled: dict[str, str] = {}
    sessions: dict[str, str] = {}
    for provider in re.findall(r"@@sessionkey:(\w+)@@", text):
        (sessions[provider],) = oracle.ask([f"sessionkey {keys[of_provider[provider]]}"])
        filled[f"@@sessionkey:{provider}@@"] = sessions[provider]
    for provider, escaped in re.findall(r"@@secret:(\w+):(.*?)@@", text):
        secret_text = html.unescape(escaped)
        if "Cng" in provider:
            value = b64(cng_value(secret, secret_text, "pkcs"))
        elif provider in sessions:
            name = keys[of_provider[provider]]
            given_text = argument(secret_text.encode())
            (value,) = oracle.ask([f"encrypt aes {name} {sessions[provider]} {given_text}"])
        else:
            (value,) = oracle.ask([f"encrypt rsa {keys[of_provider[provider]]} {argument(secret_text.encode())}"])
        filled[f"@@secret:{provider}:{escaped}@@"] = f"[enc:{provider}:{value}:enc]"
    return {"keys": keys, "filled": filled}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--exe", type=Path, default=HERE.parent / "lab" / "src" / "build" / "iiscrypt.exe")
    parser.add_argument("--prefix", type=Path, help="Wine prefix; a temporary one by default")
    parser.add_argument("--wine", default="wine")
    parser.add_argument("--cng-stand-in", action="store_true", help="make only these values anew")
    parser.add_argument("--output", type=Path, default=HERE / "vectors.json")
    options = parser.parse_args()
    if not options.exe.exists():
        sys.exit(f"{options.exe} does not exist; build it with: make -C tests/lab/src")
    with tempfile.TemporaryDirectory(prefix="webfarm-vectors-") as folder:
        prefix = options.prefix or Path(folder) / "prefix"
        oracle = Oracle(options.wine, options.exe, prefix)
        data = json.loads(options.output.read_text(encoding="utf-8")) if options.cng_stand_in else make(oracle)
        data["cng_stand_in"] = cng_stand_in(oracle, options.exe, prefix)
        options.output.write_text(
            json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        print(
            f"{options.output}: {len(data['aes'])} AES, {len(data['rsa'])} RSA, {len(data['cng']['cases'])} CNG values"
        )


if __name__ == "__main__":
    main()
