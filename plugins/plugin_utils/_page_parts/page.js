// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
"use strict";
(() => {
const $ = id => document.getElementById(id);
const GLYPH = { pass: "✓", fail: "✕", warn: "!", unknown: "?", waived: "w", na: "–" };
const WORD = { pass: "pass", fail: "fail", warn: "flagged", unknown: "unknown", waived: "waived", na: "not applicable", unreachable: "unreachable" };
const TILE = { pass: "compliant", fail: "failing", warn: "flagged", unknown: "unknown", unreachable: "without facts" };
const WEIGHT = { fail: 0, unknown: 1, warn: 2, waived: 3, pass: 4, na: 5 };
const ROW = 34, EXTRA = 6, PRINT_ROWS = 2000, PRINT_FINDINGS = 500;
const theme = { order: ["auto", "light", "dark"], now: "auto" };
let D, hosts = [], shown = [], active = 0, sort = { by: "status", up: true }, filter = { text: "", farm: "", rule: "", verdict: "", status: "" };
let printing = false, farmsShown = 0, farmsOddOnly = false;

// --- small helpers ---
// el("p.soft#x", {title: "..."}, "text", child): text is always text, never markup.
function el(what, attributes, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter(one => one !== null && one !== undefined && one !== false));
  return node;
}
const number = value => value.toLocaleString("en");
const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
const short = fingerprint => fingerprint ? fingerprint.slice(0, 12) : "–";
// The same key has the same colour wherever it appears.
const hue = fingerprint => Math.round(parseInt(fingerprint.slice(0, 8), 16) / 0xffffffff * 3600 * 0.618034) % 360;
const badge = status => el("span.s." + status, null, WORD[status] || status);
// A host without facts says which kind of silence it is: unreachable, failed, stale or missing.
const standing = host => host.status === "unreachable" ? el("span.s.unreachable", null, host.detail[0]) : badge(host.status);
function mark(status) {
  return el("span.v." + status, { role: "img", "aria-label": WORD[status], title: WORD[status] }, GLYPH[status]);
}
function table(caption, head, rows, empty) {
  if (!rows.length) return el("p.soft", null, empty || "none");
  return el("div.wrap", null, el("table.plain", null, el("caption", null, caption),
    el("thead", null, el("tr", null, head.map(one => el("th", { scope: "col" }, one)))),
    el("tbody", null, rows.map(cells => el("tr", null, cells.map((cell, at) => at ? el("td", null, cell === null || cell === undefined ? "–" : cell)
      : el("th", { scope: "row" }, cell === null || cell === undefined ? "–" : cell)))))));
}
function chip(fingerprint, odd, text) {
  return el("span.chip" + (odd ? ".odd" : ""), { style: { "--h": hue(fingerprint) }, title: fingerprint }, el("i", { "aria-hidden": "true" }), el("code", null, text || short(fingerprint)));
}
function bundleOf(fingerprint, farm) {
  for (const [owner, generation, prints] of D.bundles) if (Object.values(prints).includes(fingerprint)) return (owner === farm ? "" : owner + ", ") + "generation " + generation;
  return null;
}

// --- data ---
async function read() {
  const node = $("data");
  if (node.type === "application/json") return JSON.parse(node.textContent);
  const bytes = Uint8Array.from(atob(node.textContent.trim()), one => one.charCodeAt(0));
  return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
}
function prepare() {
  hosts = D.hosts.map(([name, farm, status, verdicts, detail], at) => {
    const words = [name, D.farms[farm], detail[3], detail[4], ...(D.lists[detail[9]] || [])];
    for (const one of detail[10]) if (one[5]) words.push(one[5]);
    return { at, name, farm: D.farms[farm], status: D.statuses[status], rank: status, verdicts, detail, hay: words.join("\n").toLowerCase() };
  });
  D.hosts = null;
}
const verdict = (host, rule) => host.verdicts[rule] < 0 ? null : D.verdicts[host.verdicts[rule]];
const text = at => D.texts[at];

// --- the matrix ---
function ruleHead(rule, at) {
  const bad = rule.totals.fail;
  return el("th.r", { scope: "col", "aria-sort": sort.by === at ? (sort.up ? "ascending" : "descending") : "none" },
    el("button", { type: "button", title: `${rule.title}. ${rule.description}`, "aria-label": rule.title, "data-sort": at }, rule.short),
    el("span.n", { title: plural(bad, "host") + " fail" }, bad ? number(bad) : ""));
}
function drawHead() {
  // Fixed widths: the browser need not measure every row, and columns do not jump while scrolling.
  const longest = Math.max(8, ...hosts.map(host => host.name.length));
  $("columns").replaceChildren(el("col", { style: { width: Math.min(340, 40 + longest * 8.6) + "px" } }), el("col", { style: { width: "120px" } }), el("col", { style: { width: "116px" } }),
    ...D.rules.map(() => el("col", { style: { width: "52px" } })));
  const by = name => sort.by === name ? (sort.up ? "ascending" : "descending") : "none";
  $("head").replaceChildren(el("tr", { "aria-rowindex": 1 },
    el("th.h", { scope: "col", "aria-sort": by("name") }, el("button", { type: "button", "data-sort": "name" }, "Host")),
    el("th", { scope: "col", "aria-sort": by("farm") }, el("button", { type: "button", "data-sort": "farm" }, "Farm")),
    el("th", { scope: "col", "aria-sort": by("status") }, el("button", { type: "button", "data-sort": "status" }, "Status")),
    D.rules.map(ruleHead)));
}
function drawRow(host, at) {
  const cells = D.rules.map((rule, index) => {
    const one = verdict(host, index);
    const node = one ? mark(one[0]) : el("span.v.off", { role: "img", "aria-label": "rule is off" });
    if (!one) return el("td.c", null, node);
    node.title = `${rule.title}: ${WORD[one[0]]}. ${one[1]}`;
    return el("td.c", null, node);
  });
  return el("tr", { "aria-rowindex": at + 2, "data-at": at },
    el("th.h", { scope: "row" }, el("button", { type: "button", tabindex: at === active ? 0 : -1, "data-open": host.at, "aria-haspopup": "dialog" }, host.name)),
    el("td.f", { title: host.farm }, host.farm), el("td", null, standing(host)), cells);
}
function pad(rows) {
  return el("tr.pad", { "aria-hidden": "true" }, el("td", { colspan: D.rules.length + 3, style: { height: rows * ROW + "px" } }));
}
let drawn = "";
function draw(force) {
  const body = $("body"), scroll = $("scroll");
  let from = 0, to = shown.length;
  if (printing) to = Math.min(to, PRINT_ROWS);
  else {
    from = Math.max(0, Math.floor(scroll.scrollTop / ROW) - EXTRA);
    to = Math.min(shown.length, Math.ceil((scroll.scrollTop + scroll.clientHeight) / ROW) + EXTRA);
  }
  const key = `${from}-${to}`;
  if (!force && key === drawn) return;
  drawn = key;
  const inside = body.contains(document.activeElement);
  const rows = [];
  if (from) rows.push(pad(from));
  for (let at = from; at < to; at++) rows.push(drawRow(shown[at], at));
  if (to < shown.length && !printing) rows.push(pad(shown.length - to));
  if (!shown.length) rows.push(el("tr", null, el("td.none", { colspan: D.rules.length + 3 }, "No host matches. Clear the filters to see all.")));
  body.replaceChildren(...rows);
  $("matrix").setAttribute("aria-rowcount", shown.length + 1);
  if (inside) (body.querySelector(`tr[data-at="${active}"] button`) || scroll).focus({ preventScroll: true });
}
function compare(a, b) {
  let result = 0;
  if (sort.by === "name") result = a.at - b.at && a.name.localeCompare(b.name, "en", { numeric: true });
  else if (sort.by === "farm") result = a.farm.localeCompare(b.farm, "en", { numeric: true });
  else if (sort.by === "status") result = a.rank - b.rank;
  else {
    const [left, right] = [verdict(a, sort.by), verdict(b, sort.by)];
    result = (left ? WEIGHT[left[0]] : 9) - (right ? WEIGHT[right[0]] : 9);
  }
  return (sort.up ? result : -result) || a.at - b.at;
}
function apply() {
  const rule = filter.rule === "" ? -1 : Number(filter.rule), words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  shown = hosts.filter(host => {
    if (filter.status && host.status !== filter.status) return false;
    if (filter.farm && host.farm !== filter.farm) return false;
    if (words.length && !words.every(word => host.hay.includes(word))) return false;
    if (rule >= 0) {
      const one = verdict(host, rule);
      return filter.verdict ? one !== null && one[0] === filter.verdict : one !== null;
    }
    return !filter.verdict || host.verdicts.some(at => at >= 0 && D.verdicts[at][0] === filter.verdict);
  });
  shown.sort(compare);
  active = 0;
  $("scroll").scrollTop = 0;
  $("count").textContent = shown.length === hosts.length ? plural(hosts.length, "host") : `${number(shown.length)} of ${plural(hosts.length, "host")}`;
  for (const tile of $("tiles").children) tile.setAttribute("aria-pressed", String(tile.dataset.status === filter.status));
  draw(true);
}
function go(at) {
  if (!shown.length) return;
  active = Math.max(0, Math.min(shown.length - 1, at));
  const scroll = $("scroll"), head = $("head").offsetHeight, top = active * ROW;
  if (top < scroll.scrollTop) scroll.scrollTop = top;
  else if (top + ROW + head > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + ROW + head - scroll.clientHeight;
  draw(true);
  const button = $("body").querySelector(`tr[data-at="${active}"] button`);
  if (button) button.focus({ preventScroll: true });
}
function show(values) {
  Object.assign(filter, { text: "", farm: "", rule: "", verdict: "", status: "" }, values);
  $("search").value = filter.text; $("farm").value = filter.farm; $("rule").value = filter.rule; $("verdict").value = filter.verdict;
  choose("hosts");
  apply();
}

// --- one host ---
function aclTable(one) {
  const rows = D.acls[one[9]].map(([sid, account, type, rights, mask, inherited]) => [account, el("code", null, sid), type, rights, el("code", null, mask), inherited ? "yes" : "no"]);
  const problems = D.problems[one[10]].map(([kind, account, message, fix]) => el("p", null, badge("fail"), " ", message, " ", el("span.fix", null, fix)));
  return el("details", { open: problems.length > 0 }, el("summary", null, `Access list of ${text(one[0])} (${plural(rows.length, "entry").replace("entrys", "entries")})`), problems,
    table("who may read the key", ["Account", "SID", "Type", "Rights", "Mask", "Inherited"], rows, "not known"));
}
function open(host) {
  const d = host.detail, sheet = $("sheet"), facts = [];
  const fact = (name, value) => { if (value !== null && value !== undefined && value !== "") facts.push(el("div", null, el("dt", null, name), el("dd", null, value))); };
  fact("Farm", host.farm); fact("Groups", (D.lists[d[9]] || []).join(", ")); fact("Recorded", d[2]); fact("Computer", d[3]);
  fact("Machine GUID", d[4] && el("code", null, d[4])); fact("Windows", text(d[5])); fact("IIS", text(d[6])); fact("PowerShell", text(d[7]));
  const shared = D.lists[d[23]];
  fact("Shared configuration", d[8] || (shared && shared[0] !== "disabled" && shared[0] !== "absent" ? shared[0] : null)); fact("Key generation", d[19]);
  const verdicts = D.rules.map((rule, at) => [rule, verdict(host, at)]).filter(one => one[1]).sort((a, b) => WEIGHT[a[1][0]] - WEIGHT[b[1][0]]);
  const keys = d[10].map(one => [text(one[0]), text(one[2]) === "present" ? "present" : el("strong", null, text(one[2])), one[3],
    one[4] === null ? null : one[4] ? "yes" : "no", one[5] ? el("span", null, chip(one[5]), bundleOf(one[5], host.farm) ? " " + bundleOf(one[5], host.farm) : "") : null, text(one[6]), one[7]]);
  const messages = d[10].filter(one => text(one[12])).map(one => el("p", null, text(one[12]), " ", text(one[13]) ? el("span.fix", null, text(one[13])) : ""));
  const values = [...D.lists[d[11]], ...D.lists[d[12]], ...D.lists[d[20]]].map(one => [el("span.mono", null, one[1]), one[3], one[5],
    el("span", null, one[6] === "ok" ? badge("pass") : one[6] === "untested" ? badge("unknown") : badge("fail"), one[6] === "ok" ? "" : " " + one[6]),
    [one[8], one[10]].filter(Boolean).join(" → ") || null]);
  const files = d[13].map(one => [one[0], one[1] ? "there" : "missing", one[4] === null ? null : number(one[4]), one[5], el("code", { title: one[2] || "" }, short(one[2])),
    one[3] ? el("code", { title: one[3] }, short(one[3])) : "not returned", one[7], one[8], one[6]]);
  const unprotected = (D.lists[d[22]] || []).map(one => [one[0], el("span.mono", null, one[1]), one[4], one[5]]);
  const machineKeys = (D.lists[d[24]] || []).map(one => [one[0], one[1], one[2], one[3] ? el("code", { title: "fingerprint of this run" }, short(one[3])) : null]);
  const sections = (D.lists[d[25]] || []).map(one => [el("span.mono", null, one[1]), el("span.mono", null, one[0]), one[2], one[4],
    el("span", null, one[5] === "ok" ? badge("pass") : one[5] === "untested" ? badge("unknown") : badge("fail"), one[5] === "ok" ? "" : " " + one[5])]);
  const gathered = d[0] === "answered" || d[0] === "stale";
  const proof = value => value === null ? "not tested" : value ? badge("pass") : badge("fail");
  const history = d[17] ? [el("p", null, `${d[17][0] === null ? "Not known whether it is on" : d[17][0] ? "On" : "Off"}${d[17][1] ? ", in " + d[17][1] : ""}${d[17][2] === null ? "" : ", " + plural(d[17][2], "snapshot")}.`),
    d[17][5].length ? table("the newest first", ["Snapshot", "Made", "Decrypts"], d[17][5].map(one => [one[0], one[1], proof(one[2])])) : null] : el("p.soft", null, "Not returned by server_info.");
  const backups = d[18] ? table("backups, the newest first", ["Name", "Made", "Decrypts"], d[18].map(one => [one[0], one[1], proof(one[2])]), "There is no backup.") : el("p.soft", null, "Not returned by server_info.");
  sheet.replaceChildren(el("div.sheet", null,
    el("header", null, el("div", null, el("h2", { id: "sheet-title" }, host.name), standing(host)),
      el("button.ghost", { type: "button", autofocus: true, onclick: () => sheet.close(), "aria-label": "Close " + host.name }, "Close")),
    d[1] ? el("p", null, d[1]) : null,
    d[21].map(one => el("p", null, badge("unknown"), ` ${one[0]} could not be gathered: ${one[1]}`)),
    el("dl.facts", null, facts),
    el("h3", null, "Verdicts"),
    table("every rule, the worst first", ["Rule", "Verdict", "Reason and fix"], verdicts.map(([rule, one]) => [rule.title, badge(one[0]),
      [el("div", null, one[1]), one[2] && one[0] !== "pass" ? el("div.fix", null, one[2]) : null]])),
    !gathered ? null : [
      el("h3", null, "Key containers"),
      table("keys, by public fingerprint", ["Container", "State", "Bits", "Exportable", "Fingerprint", "Owner", "Made"], keys, "none gathered"), messages,
      d[10].filter(one => text(one[2]) === "present").map(aclTable),
      el("h3", null, "Protected values and session keys"),
      table("never with their clear text", ["Attribute", "Provider", "Container", "Decrypts", "Why not, and what to do"], values, "none"),
      el("h3", null, "Configuration files"),
      table("as they lie on the server", ["File", "Is", "Bytes", "Written", "SHA-256", "Canonical digest", "Encoding", "Location tags", "Finding"], files, "none gathered"),
      unprotected.length ? table("not encrypted as the schema of the server wants", ["File", "Attribute", "State", "Schema"], unprotected) : null,
      D.lists[d[24]] || D.lists[d[25]] ? [el("h3", null, "ASP.NET"),
        table("machineKey, never its value", ["Application", "Is", "Set in", "Fingerprint of the run"], machineKeys, "no application"),
        table("encrypted sections of web.config", ["Section", "File", "Provider", "Container", "Opens"], sections, "none")] : null,
      el("h3", null, "History"), history, el("h3", null, "Backups"), backups,
      el("h3", null, "Services, pools, sites"),
      table("services", ["Service", "State", "Start"], (D.lists[d[14]] || []).map(one => [one[0], one[1], one[2]]), "none gathered"),
      el("p", null, el("strong", null, "Pools: "), (D.lists[d[15]] || []).join(", ") || "none"), el("p", null, el("strong", null, "Sites: "), (D.lists[d[16]] || []).join(", ") || "none")]));
  sheet.showModal();
  sheet.scrollTop = 0;
}

// --- keys by farm ---
function farmKeys() {
  const farms = new Map();
  for (const host of hosts) {
    if (!farms.has(host.farm)) farms.set(host.farm, { name: host.farm, hosts: [], containers: new Map() });
    const farm = farms.get(host.farm);
    farm.hosts.push(host);
    for (const one of host.detail[10]) {
      if (text(one[1]) !== "cryptoapi") continue;
      const name = text(one[0]);
      if (!farm.containers.has(name)) farm.containers.set(name, new Map());
      const print = one[5] || "", prints = farm.containers.get(name);
      if (!prints.has(print)) prints.set(print, []);
      prints.get(print).push(host);
    }
  }
  for (const farm of farms.values()) {
    farm.odd = 0;
    for (const [name, prints] of farm.containers) {
      if (prints.size === 1 && prints.has("")) { farm.containers.delete(name); continue; }
      const total = [...prints.values()].reduce((sum, one) => sum + one.length, 0);
      const list = [...prints].map(([print, members]) => ({ print, members })).sort((a, b) => b.members.length - a.members.length);
      const majority = list[0].members.length * 2 > total && list[0].print ? list[0].print : null;
      for (const one of list) { one.odd = one.print !== majority && list.length > 1; if (one.odd) farm.odd += one.members.length; }
      farm.containers.set(name, list);
    }
  }
  return [...farms.values()].sort((a, b) => b.odd - a.odd || a.name.localeCompare(b.name, "en", { numeric: true }));
}
function hostLinks(members) {
  const node = el("span.members", null);
  const fill = limit => node.replaceChildren(...members.slice(0, limit).flatMap((host, at) => [at ? ", " : "", el("button.link", { type: "button", onclick: () => open(host) }, host.name)]),
    members.length > limit ? el("span", null, " ", el("button.link", { type: "button", onclick: () => fill(Infinity) }, `and ${number(members.length - limit)} more`)) : "");
  fill(12);
  return node;
}
function farmCard(farm) {
  const rows = [...farm.containers].map(([name, list]) => {
    const strip = el("div.strip", { "aria-hidden": "true" });
    let room = 400;
    for (const one of list) for (const host of one.members.slice(0, room)) {
      room--;
      strip.append(one.print ? el("span.sq" + (one.odd ? ".odd" : ""), { style: { "--h": hue(one.print) }, title: `${host.name}: ${short(one.print)}` }) : el("span.sq.none", { title: `${host.name}: no key` }));
    }
    let letter = 0;
    const keys = list.map(({ print, members, odd }) => el("li", null,
      print ? chip(print, odd, `${String.fromCharCode(65 + letter++ % 26)} ${short(print)}`) : el("span.chip", null, "no readable key"),
      el("strong", null, plural(members.length, "host")), odd ? el("span.odd-label", null, print ? "differs" : "no key") : null,
      print && bundleOf(print, farm.name) ? el("span.soft", null, bundleOf(print, farm.name)) : null, hostLinks(members)));
    return el("div.keyrow", null, el("h3", null, name), el("div", null, strip, el("ul.keys", null, keys)));
  });
  return el("article.card", { "data-farm": farm.name }, el("div.farm-head", null, el("h2", null, farm.name || "(no farm)"), el("span.soft", null, plural(farm.hosts.length, "host")),
    farm.odd ? el("span.s.fail", null, "keys differ") : rows.length ? el("span.s.pass", null, "all equal") : null,
    el("button.link", { type: "button", onclick: () => show({ farm: farm.name }) }, "show its hosts")), rows.length ? rows : el("p.soft", null, "No key of this farm could be read."));
}
let farmList = null;
function drawKeys(more) {
  const view = $("view-keys");
  farmList = farmList || farmKeys();
  if (more) farmsShown += 40;
  else farmsShown = 40;
  const list = farmsOddOnly ? farmList.filter(one => one.odd) : farmList;
  view.replaceChildren(el("p.soft", null, "One square per host; equal keys have equal colours. Striped and outlined in red: differs from the majority of its farm. Dashed: no key."),
    el("p", null, el("label", null, el("input", { type: "checkbox", id: "odd-only", checked: farmsOddOnly, onchange: event => { farmsOddOnly = event.target.checked; drawKeys(); $("odd-only").focus(); } }),
      ` only farms whose keys differ (${number(farmList.filter(one => one.odd).length)} of ${number(farmList.length)})`)),
    el("div.farms", null, list.slice(0, farmsShown).map(farmCard)),
    list.length > farmsShown ? el("button.ghost.more", { type: "button", onclick: () => drawKeys(true) }, `Show more (${number(list.length - farmsShown)} farms left)`) : "");
}

// --- rules ---
function drawRules() {
  const cards = D.rules.map((rule, at) => {
    const total = Object.values(rule.totals).reduce((sum, one) => sum + one, 0) || 1;
    const order = ["fail", "unknown", "warn", "waived", "pass", "na"];
    const options = Object.entries(rule.options);
    return el("article.card", null, el("h2", null, rule.title), el("p.soft", null, el("code", null, rule.id)), el("p", null, rule.description),
      el("div.bar", { "aria-hidden": "true" }, order.filter(one => rule.totals[one]).map(one => el("span." + one, { style: { width: rule.totals[one] / total * 100 + "%" } }))),
      el("div.counts", null, order.filter(one => rule.totals[one]).map(one => el("button.link", { type: "button", onclick: () => show({ rule: String(at), verdict: one }) }, `${number(rule.totals[one])} ${WORD[one]}`))),
      options.length ? el("details", null, el("summary", null, "Options"), el("pre.mono", { style: { "white-space": "pre-wrap" } }, options.map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join("\n"))) : null,
      rule.references.length ? el("ul.refs", null, rule.references.map(one => el("li", null, one))) : null);
  });
  const select = one => [["hosts", one.hosts], ["groups", one.groups], ["farms", one.farms]].filter(pair => pair[1]).map(([name, list]) => `${name}: ${list.join(", ")}`).join("; ");
  const waivers = table("exceptions with a reason", ["Rule", "For", "Reason", "Until"], D.policy.waivers.map(one => [one.rule, select(one), one.reason, one.until || "no end"]), "No waivers.");
  const overrides = table("rules that differ for some hosts", ["For", "Rules"], D.policy.overrides.map(one => [select(one), el("code", null, JSON.stringify(one.rules))]), "No overrides.");
  $("view-rules").replaceChildren(el("div.rules", null, cards), el("h3", null, "Waivers"), el("div.card", null, waivers), el("h3", null, "Overrides"), el("div.card", null, overrides));
}

// --- drift ---
function drawDrift() {
  const drift = D.drift, view = $("view-drift"), limit = 500;
  if (!drift) { view.replaceChildren(el("p.soft", null, "This report was not compared with an earlier one.")); return; }
  const byName = new Map(hosts.map(host => [host.name, host]));
  const name = one => byName.has(one) ? el("button.link", { type: "button", onclick: () => open(byName.get(one)) }, one) : one;
  const titles = new Map(D.rules.map(rule => [rule.id, rule.title]));
  const part = (title, list, caption, head, row) => [el("h3", null, `${title} (${number(list.length)})`), table(caption, head, list.slice(0, limit).map(row), "none"),
    list.length > limit ? el("p.soft", null, `The first ${limit} are shown; the JSON report has all.`) : null];
  view.replaceChildren(el("div.card", null, el("p", null, `Compared with the report of ${drift.since}: `, el("strong", null, `${number(drift.worse)} verdicts worse, ${number(drift.better)} better.`)),
    part("Verdicts", drift.verdicts, "the worst first", ["Host", "Rule", "Before", "Now", "Reason"], one => [name(one.host), titles.get(one.rule) || one.rule, badge(one.before), badge(one.after), one.reason]),
    part("Keys", drift.keys, "public fingerprints", ["Host", "Container", "Before", "Now"], one => [name(one.host), one.container, one.before ? chip(one.before) : "none", one.after ? chip(one.after) : "none"]),
    part("Configuration files", drift.files, "digests", ["Host", "File", "Before", "Now"], one => [name(one.host), one.file, el("code", null, short(one.before)), el("code", null, short(one.after))]),
    part("Hosts that came", drift.added.map(one => [one]), "new in this report", ["Host"], one => [name(one[0])]),
    part("Hosts that went", drift.removed.map(one => [one]), "no longer in this report", ["Host"], one => [one[0]])));
}

// --- views, print, theme ---
const VIEWS = ["hosts", "keys", "rules", "drift"], DRAW = { keys: () => drawKeys(), rules: drawRules, drift: drawDrift }, done = new Set();
function choose(name, focus) {
  for (const one of VIEWS) {
    const on = one === name, tab = $("tab-" + one);
    tab.setAttribute("aria-selected", String(on)); tab.tabIndex = on ? 0 : -1; $("view-" + one).hidden = !on;
    if (on && focus) tab.focus();
  }
  if (DRAW[name] && !done.has(name)) { done.add(name); DRAW[name](); }
  if (name === "hosts") draw(true);
}
function findings() {
  const rows = [];
  for (const host of shown) {
    D.rules.forEach((rule, at) => { const one = verdict(host, at); if (one && ["fail", "warn"].includes(one[0]) && rows.length <= PRINT_FINDINGS) rows.push([host.name, rule.title, badge(one[0]), [el("div", null, one[1]), one[2] ? el("div.fix", null, one[2]) : null]]); });
  }
  const cut = rows.length > PRINT_FINDINGS;
  $("print-findings").replaceChildren(el("h3", null, "Findings"), table("reasons and fixes", ["Host", "Rule", "Verdict", "Reason and fix"], rows.slice(0, PRINT_FINDINGS), "none"),
    cut || shown.length > PRINT_ROWS ? el("p", null, `Shortened for paper: at most ${PRINT_ROWS} hosts and ${PRINT_FINDINGS} findings. Filter first, or use the CSV.`) : "");
}
function setTheme(name) {
  theme.now = name;
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  const label = { auto: "as the system", light: "light", dark: "dark" }[name];
  $("theme").setAttribute("aria-label", "Colours: " + label);
  $("theme-name").textContent = name[0].toUpperCase() + name.slice(1);
  try { localStorage.setItem("webfarm-theme", name); } catch { /* a page from a file may have no storage */ }
}
function listen() {
  let due = 0;
  const soon = () => { cancelAnimationFrame(due); due = requestAnimationFrame(apply); };
  $("search").addEventListener("input", event => { filter.text = event.target.value; soon(); });
  for (const name of ["farm", "rule", "verdict"]) $(name).addEventListener("change", event => { filter[name] = event.target.value; apply(); });
  $("filters").addEventListener("submit", event => event.preventDefault());
  $("filters").addEventListener("reset", () => { Object.assign(filter, { text: "", farm: "", rule: "", verdict: "", status: "" }); apply(); });
  $("tiles").addEventListener("click", event => {
    const tile = event.target.closest("button");
    if (!tile) return;
    filter.status = filter.status === tile.dataset.status ? "" : tile.dataset.status;
    choose("hosts"); apply();
  });
  let frame = 0;
  $("scroll").addEventListener("scroll", () => { cancelAnimationFrame(frame); frame = requestAnimationFrame(() => draw(false)); }, { passive: true });
  addEventListener("resize", () => draw(false));
  $("scroll").addEventListener("click", event => {
    const head = event.target.closest("button[data-sort]"), opened = event.target.closest("tr[data-at]");
    if (head) {
      const by = isNaN(head.dataset.sort) ? head.dataset.sort : Number(head.dataset.sort);
      sort = { by, up: sort.by === by ? !sort.up : true };
      drawHead(); apply();
      $("head").querySelector(`button[data-sort="${by}"]`).focus();
    } else if (opened) { active = Number(opened.dataset.at); draw(true); opened.querySelector("button")?.focus(); open(shown[active]); }
  });
  $("scroll").addEventListener("keydown", event => {
    if (event.target.closest("thead")) return;
    const page = Math.max(1, Math.floor($("scroll").clientHeight / ROW) - 3);
    const to = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: shown.length - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); go(to); }
  });
  $("sheet").addEventListener("click", event => { if (event.target === $("sheet")) $("sheet").close(); });
  $("sheet").addEventListener("close", () => { const button = $("body").querySelector(`tr[data-at="${active}"] button`); if (!$("view-hosts").hidden && button) button.focus({ preventScroll: true }); });
  for (const name of VIEWS) {
    $("tab-" + name).addEventListener("click", () => choose(name));
    $("tab-" + name).addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { event.preventDefault(); choose(VIEWS[(VIEWS.indexOf(name) + step + VIEWS.length) % VIEWS.length], true); }
    });
  }
  $("theme").addEventListener("click", () => setTheme(theme.order[(theme.order.indexOf(theme.now) + 1) % 3]));
  $("print").addEventListener("click", () => print());
  addEventListener("beforeprint", () => { printing = true; draw(true); findings(); });
  addEventListener("afterprint", () => { printing = false; draw(true); $("print-findings").replaceChildren(); });
}
function start() {
  $("policy").textContent = D.policy.name;
  const tiles = [["", D.summary.hosts, "hosts"], ...["pass", "fail", "warn", "unknown", "unreachable"].map(one => [one, D.summary[one], TILE[one]])];
  $("tiles").replaceChildren(...tiles.map(([status, count, label]) => el("button.tile", { type: "button", "data-status": status, "aria-pressed": String(status === "") }, el("b", null, number(count)), el("span", null, label))));
  const farms = [...D.farms].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  $("farm").append(...farms.map(one => el("option", { value: one }, one)));
  $("rule").append(...D.rules.map((rule, at) => el("option", { value: at }, rule.title)));
  $("verdict").append(...Object.keys(WEIGHT).map(one => el("option", { value: one }, WORD[one])));
  $("legend").append(...Object.keys(WEIGHT).map(one => el("span", null, mark(one), WORD[one])));
  if (D.drift) $("tab-drift").append(` (${number(D.drift.verdicts.length + D.drift.keys.length + D.drift.files.length)})`);
  drawHead();
  listen();
  $("wait").hidden = true;
  $("app").hidden = false;
  apply();
  performance.mark("ready");
  document.documentElement.dataset.ready = "yes";
}
try { const kept = localStorage.getItem("webfarm-theme"); if (theme.order.includes(kept)) setTheme(kept); } catch { /* no storage */ }
read().then(data => { D = data; prepare(); start(); }).catch(error => {
  $("wait").textContent = `This page cannot show its data: ${error.message}. A current browser is needed (2023 or later), or use the JSON or CSV report.`;
});
})();
