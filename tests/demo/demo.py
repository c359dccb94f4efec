# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on a simulated farm: the failure first, then the playbook, then a second run that changes nothing.

./run demo sets everything up and calls this. Only the collection that ./run installed is used.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

import without_powershell

from lab import Farm, Host, LabError, LabUnavailable, paths, setup, template

WORK = paths.BUILD / "demo"
FARM = "demo"
HOSTS = ("web1", "web2", "web3")
RECAP = re.compile(r"^(\S+)\s*: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
STARTED = time.monotonic()


def heading(text: str) -> None:
    print(f"\n=== [{time.monotonic() - STARTED:3.0f} s] {text}\n", flush=True)


def say(text: str = "") -> None:
    print(f"    {text}" if text else "", flush=True)


def stop(text: str) -> None:
    sys.exit(f"\nThe demo failed: {text}\nThe farm stays up for a look; ./run lab down ends it.")


# --- the farm ---------------------------------------------------------------------------------------------------------


def raise_farm() -> Farm:
    """The farm in its first state: raised anew, or put back when it is still up."""
    farm = Farm(FARM, paths.FARMS)
    if farm.is_up() and set(HOSTS) <= set(farm.hosts):
        say("The farm of an earlier demo is up; putting its servers back to their first state.")
        farm.reset()
        return farm
    farm.down()
    template.ensure(say)
    return Farm.up(list(HOSTS), paths.FARMS, FARM, say)


def count_values(host: Host) -> dict[str, int]:
    """Protected values by provider, as the file says."""
    counts: dict[str, int] = {}
    for provider in re.findall(r"\[enc:([A-Za-z]+):(?!:)", host.config.read_text("utf-8-sig")):
        counts[provider] = counts.get(provider, 0) + 1
    return counts


def show_hosts(farm: Farm) -> None:
    for name in HOSTS:
        host = farm.host(name)
        running = [service for service, state in host.services().items() if state == "running" and service[:3] != "Lab"]
        values = ", ".join(f"{count} {provider}" for provider, count in sorted(count_values(host).items()))
        say(f"{name}  containers: {', '.join(host.containers())}")
        say(f"      protected values: {values}")
        say(f"      running: {', '.join(running)}")


def show_pages(host: Host) -> list[int]:
    """What a visitor of the golden server's sites gets from this host."""
    statuses = []
    for label, path, header, port in (
        ("shop.example/", "/", "shop.example", 80),
        ("shop.example/orders", "/orders", "shop.example", 80),
        ("legacy (port 8080)", "/", "", 8080),
    ):
        status, body = host.http(path, header, port)
        lines = body.strip().splitlines() if status != 200 else []
        say(f"{host.name}  {label:20} HTTP {status or 'no answer'}  {lines[-1] if lines else ''}".rstrip())
        statuses.append(status)
    return statuses


# --- the problem ------------------------------------------------------------------------------------------------------


def show_the_problem(golden: Host, member: Host) -> None:
    """The file copied as it is: the services start, the pools do not."""
    own = member.config.read_bytes()
    seen = len(member.events())
    member.stop_services()
    member.config.write_bytes(golden.config.read_bytes())
    try:
        answers = member.start_services()
        say(
            f"copied applicationHost.config from {golden.name}; services: "
            + ", ".join(f"{n} {a}" for n, a in answers.items())
        )
        statuses = show_pages(member)
        for event in member.events()[seen:]:
            if event.get("level") in ("Warning", "Error"):
                message = str(event["message"]).split(". ", maxsplit=1)[0]
                say(f"event {event['id']} {event['source']} {event.get('hresult', '')}: {message}.")
        if 200 in statuses:
            stop(f"{member.name} serves pages with the naive copy, although it has other keys")
    finally:
        member.stop_services()
        member.config.write_bytes(own)
        member.start_services()
    say()
    say("0x80090005 is Bad Data: the passwords in the file were encrypted under web1's keys. The old file is back.")


# --- the playbook -----------------------------------------------------------------------------------------------------


def write_project(farm: Farm) -> Path:
    """What an administrator keeps beside the inventory: custody key pair, vault, variables."""
    WORK.mkdir(parents=True, exist_ok=True)
    WORK.chmod(0o700)
    for old in sorted(WORK.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() else old.unlink()
    passphrase, vault = secrets.token_urlsafe(24), WORK / "vault-password"
    write_private(vault, secrets.token_urlsafe(24) + "\n")
    write_private(WORK / "passphrase", passphrase)
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:3072", "-subj", "/CN=shop key custody", "-days", "3650"]
    quiet(
        [
            *openssl,
            "-passout",
            f"file:{WORK / 'passphrase'}",
            "-keyout",
            str(WORK / "custody.key"),
            "-out",
            str(WORK / "custody.crt"),
        ]
    )
    (WORK / "custody.key").chmod(0o600)
    (WORK / "passphrase").unlink()

    inventory = {
        "golden": {"hosts": {HOSTS[0]: farm.host(HOSTS[0]).inventory_vars()}},
        "farm": {"hosts": {name: farm.host(name).inventory_vars() for name in HOSTS[1:]}},
    }
    write_private(WORK / "inventory.yml", json.dumps(inventory, indent=2) + "\n")
    variables = WORK / "group_vars" / "all"
    variables.mkdir(parents=True)
    write_private(
        variables / "provision.yml",
        "provision_farm: shop\n"
        "provision_recipients: ['{{ inventory_dir }}/custody.crt']\n"
        "provision_opening_file: '{{ inventory_dir }}/custody.key'\n"
        "provision_opening_passphrase: '{{ vault_custody_passphrase }}'\n"
        "provision_cng: portable\n"
        "provision_start_services: automatic\n",
    )
    write_private(variables / "vault.yml", f"vault_custody_passphrase: {json.dumps(passphrase)}\n")
    quiet(["ansible-vault", "encrypt", "--vault-password-file", str(vault), str(variables / "vault.yml")])
    return WORK / "inventory.yml"


def write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)


def quiet(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        stop(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")


def playbook(inventory: Path) -> tuple[dict[str, int], list[str]]:
    """Run the playbook, its output as it comes; the number of changes by host, and the lines of the summary."""
    command = ["ansible-playbook", "-i", str(inventory), "--vault-password-file", str(WORK / "vault-password")]
    print(f"$ ansible-playbook -i inventory.yml webfarm.iis.provision          (in {WORK})", flush=True)
    lines: list[str] = []
    with subprocess.Popen(
        [*command, "webfarm.iis.provision"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    recap = {
        name: (int(changed), int(lost) + int(failed)) for name, changed, lost, failed in RECAP.findall("".join(lines))
    }
    if process.returncode or set(recap) != set(HOSTS) or any(bad for dummy, bad in recap.values()):
        stop(f"the playbook ended with exit code {process.returncode}; its output is above")
    summary = json.loads("[" + "".join(lines).partition('"msg": [')[2].partition("]\n")[0] + "]")
    return {name: changed for name, (changed, dummy) in recap.items()}, summary


def pin(bundle: Path) -> None:
    """What an administrator does after the first run: the fingerprints go into the inventory."""
    keys = json.loads(bundle.read_text("utf-8"))["containers"]
    lines = [f"  {key['container']}: {key['fingerprint']}\n" for key in keys]
    with (WORK / "group_vars" / "all" / "provision.yml").open("a", encoding="utf-8") as stream:
        stream.write("provision_expected_fingerprints:\n" + "".join(lines))
    say("pinned in group_vars/all/provision.yml:")
    for line in lines:
        say(line.rstrip())


def main() -> int:
    try:
        powershell = setup.require(lambda text: None, install=False)  # ./run has just tried to install everything
    except LabUnavailable as error:
        return without_powershell.offline(str(error))
    if powershell is None:
        return without_powershell.on_the_farm(raise_farm, show_pages, "there is no PowerShell for the lab.")

    heading("A farm of three simulated servers")
    farm = raise_farm()
    show_hosts(farm)
    golden, member = farm.host(HOSTS[0]), farm.host(HOSTS[1])
    say()
    say("web1 is the golden server. web2 is new and has other keys. web3 lacks iisWasKey: WAS cannot start there.")
    if show_pages(golden) != [200, 200, 200]:
        stop("the golden server does not serve its own sites")

    heading("The problem: applicationHost.config copied to web2 the naive way")
    show_the_problem(golden, member)

    heading("The playbook: compare, seal, prove, switch keys and file together, start, check")
    inventory = write_project(farm)
    before = golden.snapshot()
    first, summary = playbook(inventory)
    if not all(first[name] for name in HOSTS):
        stop(f"the first run should have changed something for every host: {first}")

    heading("The same again: nothing may change")
    pin(WORK / "webfarm" / "shop.keyset.json")
    second, dummy = playbook(inventory)
    if any(second.values()):
        stop(f"the second run changed something: {second}")
    changes = before.differences(golden.snapshot())
    if changes:
        stop(f"the golden server was changed: {changes}")

    heading("What was done, and the farm now")
    for line in summary:
        say(line)
    say()
    for name in HOSTS:
        if show_pages(farm.host(name)) != [200, 200, 200]:
            stop(f"{name} does not serve the sites of the golden server")
    say()
    say("Services now:")
    for name in HOSTS:
        states = farm.host(name).services()
        say(
            f"  {name}  " + ", ".join(f"{service} {state}" for service, state in states.items() if service[:3] != "Lab")
        )
    say()
    say(
        f"Every server serves web1's sites with web1's keys; the second run reported changed=0. "
        f"{time.monotonic() - STARTED:.0f} s."
    )
    say()
    say("The farm stays up:")
    say("  ./run lab status                   the servers and their services")
    say(f"  {os.path.relpath(farm.folder)}/web2/prefix/drive_c          drive C of web2")
    say(f"  {os.path.relpath(WORK)}                        inventory, vault, sealed bundle, candidate configuration")
    say("  ./run lab down                     ends it")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        stop(str(error))
    except KeyboardInterrupt:
        stop("interrupted")
