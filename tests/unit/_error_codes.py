# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/docsite/rst/guide_error_codes.rst from the table of causes: python tests/unit/_error_codes.py."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "plugins" / "module_utils" / "_Diagnosis.psm1"
PAGE = ROOT / "docs" / "docsite" / "rst" / "guide_error_codes.rst"

HEAD = """..
  Copyright (c) 2026 the webfarm.iis authors
  GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
  SPDX-License-Identifier: GPL-3.0-or-later

..
  Written by tests/unit/_error_codes.py from the table in plugins/module_utils/_Diagnosis.psm1; a test compares them.

.. _ansible_collections.webfarm.iis.docsite.guide_error_codes:

Error codes, causes, fixes
==========================

What the modules, the report and the playbook ``webfarm.iis.diagnose`` say about an error code or a verdict, in one
place. The playbook looks at a server and says which of these it is, with evidence and the command that mends it:

.. code-block:: console

   ansible-playbook webfarm.iis.diagnose -i inventory.yml -e target_hosts=web7 -e 'diagnose_symptom="hresult:80090016"'

.. contents::
   :local:
   :depth: 1

"""


def table() -> dict[str, Any]:
    """The table as it stands in the PowerShell library."""
    found = re.search(r"(?ms)^\$script:diagnosisTable = @'\n(.*?)\n'@$", TABLE.read_text(encoding="utf-8"))
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def plain(value: Any) -> str:
    """A text of the table with general words for the names."""
    text = value if isinstance(value, str) else " ".join(value)
    text = text.replace("{container}", "the key container").replace("{provider}", "the provider")
    text = "T" + text[1:] if text.startswith("the ") else text
    # no markup by accident
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("`", "\\`")


def section(title: str, sign: str = "-") -> str:
    return f"{title}\n{sign * len(title)}\n\n"


def entry(one: dict[str, Any], names: dict[str, str]) -> str:
    codes = ", ".join(f"``{code}`` {names[code]}" for code in one["codes"])
    words = ", ".join(f"``{word}``" for word in one["verdicts"])
    where = f" (``{one['context']}``)" if one["context"] else ""
    lines = [section(plain(one["message"]).rstrip(".") + (f" - {one['context']}" if one["context"] else ""), "~")]
    fields = [("Code", codes + where if codes else ""), ("Verdict", words + where if words else "")]
    fields += [(name.capitalize(), plain(one[name])) for name in ("cause", "confirm", "fix")]
    for name, text in fields:
        if text:
            lines.append(
                textwrap.fill(f":{name}: {text}", 140, subsequent_indent="    ", break_on_hyphens=False) + "\n"
            )
    return "".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    content = table()
    names = content["names"]
    text = HEAD + section("By code")
    rows = []
    for code, name in sorted(names.items()):
        said = [plain(one["message"]).rstrip(".") for one in content["entries"] if code in one["codes"]]
        rows.append((f"``{code}``", name, "; ".join(dict.fromkeys(said)) or "no entry of its own"))
    text += ".. list-table::\n   :header-rows: 1\n\n   * - code\n     - name\n     - what it says\n"
    for code, name, what in rows:
        text += f"   * - {code}\n     - {name}\n     - {what}\n"
    text += "\nA Win32 code such as 1053 is ``0x8007041D`` here: ``0x80070000`` plus the number.\n\n"
    text += section("Codes and verdicts") + "".join(
        entry(one, names) for one in content["entries"] if one["codes"] or one["verdicts"]
    )
    text += section("What only several facts show") + "".join(
        entry(one, names) for one in content["entries"] if not one["codes"] and not one["verdicts"]
    )
    text += (
        section("Events") + ".. list-table::\n   :header-rows: 1\n\n   * - source\n     - number\n     - what it says\n"
    )
    for one in content["events"]:
        text += f"   * - {one['source']}\n     - {one['id']}\n     - {plain(one['text'])}\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
