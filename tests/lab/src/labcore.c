/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Shared by iissvc.exe and appcmd.exe: files, configuration, events, faults, state. Protected values: labcrypt.c.
 */
#include "lab.h"

/* ---- memory and text ------------------------------------------------------------------------------------------- */

void *lab_alloc(size_t size)
{
    void *block = calloc(1, size ? size : 1);
    if (!block) {
        fputs("out of memory\n", stderr);
        ExitProcess(ERROR_NOT_ENOUGH_MEMORY);
    }
    return block;
}

wchar_t *lab_wcsdup(const wchar_t *text)
{
    wchar_t *copy = lab_alloc((wcslen(text) + 1) * sizeof(wchar_t));
    wcscpy(copy, text);
    return copy;
}

static wchar_t *format_list(const wchar_t *format, va_list list)
{
    va_list again;
    wchar_t *text;
    int count;

    va_copy(again, list);
    count = _vscwprintf(format, again);
    va_end(again);
    text = lab_alloc(((size_t)(count < 0 ? 0 : count) + 1) * sizeof(wchar_t));
    if (count > 0)
        _vsnwprintf(text, (size_t)count + 1, format, list);
    return text;
}

wchar_t *lab_format(const wchar_t *format, ...)
{
    va_list list;
    wchar_t *text;

    va_start(list, format);
    text = format_list(format, list);
    va_end(list);
    return text;
}

char *lab_utf8(const wchar_t *text)
{
    int size = WideCharToMultiByte(CP_UTF8, 0, text, -1, NULL, 0, NULL, NULL);
    char *out = lab_alloc((size_t)size + 1);
    WideCharToMultiByte(CP_UTF8, 0, text, -1, out, size, NULL, NULL);
    return out;
}

wchar_t *lab_wide(const char *text)
{
    int size = MultiByteToWideChar(CP_UTF8, 0, text, -1, NULL, 0);
    wchar_t *out = lab_alloc(((size_t)size + 1) * sizeof(wchar_t));
    MultiByteToWideChar(CP_UTF8, 0, text, -1, out, size);
    return out;
}

void lab_expand(const wchar_t *path, wchar_t *out, DWORD size)
{
    DWORD count = ExpandEnvironmentStringsW(path, out, size);
    if (!count || count > size)
        lstrcpynW(out, path, (int)size);
}

void lab_program_data(const wchar_t *below, wchar_t *out, DWORD size)
{
    wchar_t folder[MAX_PATH] = L"";
    DWORD bytes = sizeof folder;

    /* not %ProgramData%: Wine gives services another value than all other programs */
    if (RegGetValueW(HKEY_LOCAL_MACHINE, L"SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\ProfileList", L"ProgramData",
                     RRF_RT_REG_SZ | RRF_SUBKEY_WOW6464KEY, NULL, folder, &bytes) || !*folder)
        wcscpy(folder, L"C:\\ProgramData");
    swprintf(out, size, L"%ls\\%ls", folder, below);
}

BOOL lab_exists(const wchar_t *path)
{
    return GetFileAttributesW(path) != INVALID_FILE_ATTRIBUTES;
}

void lab_make_folders(const wchar_t *folder)
{
    wchar_t part[MAX_PATH];
    size_t i, length = wcslen(folder);

    if (length >= MAX_PATH)
        return;
    for (i = 3; i <= length; i++) {
        if (folder[i] == L'\\' || !folder[i]) {
            memcpy(part, folder, i * sizeof(wchar_t));
            part[i] = 0;
            CreateDirectoryW(part, NULL);
        }
    }
}

DWORD lab_read_file(const wchar_t *path, BYTE **bytes, DWORD *size)
{
    HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                              OPEN_EXISTING, 0, NULL);
    DWORD length, done = 0, error = 0;

    *bytes = NULL;
    *size = 0;
    if (file == INVALID_HANDLE_VALUE)
        return GetLastError();
    length = GetFileSize(file, NULL);
    *bytes = lab_alloc((size_t)length + 1);
    if (!ReadFile(file, *bytes, length, &done, NULL))
        error = GetLastError();
    CloseHandle(file);
    if (error) {
        free(*bytes);
        *bytes = NULL;
        return error;
    }
    *size = done;
    return 0;
}

DWORD lab_write_file(const wchar_t *path, const void *bytes, DWORD size)
{
    static LONG counter;
    wchar_t temporary[MAX_PATH];
    HANDLE file;
    DWORD done, error = 0;
    int attempt;

    swprintf(temporary, MAX_PATH, LAB_ROOT L"\\write-%lu-%ld", GetCurrentProcessId(), InterlockedIncrement(&counter));
    file = CreateFileW(temporary, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return GetLastError();
    if (!WriteFile(file, bytes, size, &done, NULL) || done != size)
        error = GetLastError() ? GetLastError() : ERROR_DISK_FULL;
    CloseHandle(file);
    for (attempt = 0; !error && attempt < 50; attempt++) {
        if (MoveFileExW(temporary, path, MOVEFILE_REPLACE_EXISTING))
            return 0;
        if (GetLastError() != ERROR_SHARING_VIOLATION && GetLastError() != ERROR_ACCESS_DENIED)
            break;
        Sleep(20); /* somebody reads the old file */
    }
    if (!error)
        error = GetLastError();
    DeleteFileW(temporary);
    return error;
}

/* ---- XML ------------------------------------------------------------------------------------------------------- */

typedef struct {
    lab_document *document;
    const wchar_t *text;
    size_t at, length;
    int line;
} scanner;

static BOOL fail(scanner *s, const wchar_t *reason)
{
    if (!s->document->error) {
        s->document->error = reason;
        s->document->error_line = s->line;
    }
    return FALSE;
}

static BOOL looking_at(const scanner *s, const wchar_t *what)
{
    size_t count = wcslen(what);
    return s->length - s->at >= count && !wcsncmp(s->text + s->at, what, count);
}

static void advance(scanner *s, size_t count)
{
    while (count-- && s->at < s->length)
        if (s->text[s->at++] == L'\n')
            s->line++;
}

static BOOL is_space(wchar_t c)
{
    return c == L' ' || c == L'\t' || c == L'\r' || c == L'\n';
}

static void skip_space(scanner *s)
{
    while (s->at < s->length && is_space(s->text[s->at]))
        advance(s, 1);
}

static BOOL is_name(wchar_t c, BOOL first)
{
    if ((c >= L'a' && c <= L'z') || (c >= L'A' && c <= L'Z') || c == L'_' || c == L':' || c >= 0x80)
        return TRUE;
    return !first && ((c >= L'0' && c <= L'9') || c == L'-' || c == L'.');
}

static wchar_t *take_name(scanner *s)
{
    size_t start = s->at;
    wchar_t *name;

    if (s->at >= s->length || !is_name(s->text[s->at], TRUE))
        return NULL;
    while (s->at < s->length && is_name(s->text[s->at], FALSE))
        s->at++;
    name = lab_alloc((s->at - start + 1) * sizeof(wchar_t));
    memcpy(name, s->text + start, (s->at - start) * sizeof(wchar_t));
    return name;
}

/* Skips to behind `end`; the scanner stands at the beginning of what is skipped. */
static BOOL skip_behind(scanner *s, size_t opening, const wchar_t *end, BOOL comment)
{
    advance(s, opening);
    while (s->at < s->length) {
        if (looking_at(s, end)) {
            advance(s, wcslen(end));
            return TRUE;
        }
        if (comment && looking_at(s, L"--"))
            return fail(s, L"'--' inside a comment");
        advance(s, 1);
    }
    return fail(s, L"unexpected end of file");
}

/* One character or reference of an attribute value or of text. */
static BOOL take_character(scanner *s, wchar_t *out, size_t *count)
{
    static const struct { const wchar_t *name; wchar_t value; } named[] = {
        {L"&amp;", L'&'}, {L"&lt;", L'<'}, {L"&gt;", L'>'}, {L"&quot;", L'"'}, {L"&apos;", L'\''}};
    wchar_t c = s->text[s->at];
    unsigned long code = 0;
    size_t i, digits = 0;
    int base = 10;

    *count = 1;
    if (c != L'&') {
        if (c < 0x20 && !is_space(c))
            return fail(s, L"illegal control character");
        out[0] = is_space(c) ? L' ' : c;
        if (c == L'\r' && s->at + 1 < s->length && s->text[s->at + 1] == L'\n')
            advance(s, 1);
        advance(s, 1);
        return TRUE;
    }
    for (i = 0; i < sizeof named / sizeof *named; i++) {
        if (looking_at(s, named[i].name)) {
            out[0] = named[i].value;
            advance(s, wcslen(named[i].name));
            return TRUE;
        }
    }
    if (!looking_at(s, L"&#"))
        return fail(s, L"unknown entity");
    s->at += 2;
    if (s->at < s->length && s->text[s->at] == L'x') {
        base = 16;
        s->at++;
    }
    for (; s->at < s->length && s->text[s->at] != L';'; s->at++, digits++) {
        wchar_t d = s->text[s->at];
        int v = d >= L'0' && d <= L'9' ? d - L'0' : d >= L'a' && d <= L'f' ? d - L'a' + 10
              : d >= L'A' && d <= L'F' ? d - L'A' + 10 : 99;
        if (v >= base || digits > 8)
            return fail(s, L"bad character reference");
        code = code * (unsigned long)base + (unsigned long)v;
    }
    if (!digits || s->at >= s->length || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)
        || (code < 0x20 && code != 9 && code != 10 && code != 13))
        return fail(s, L"bad character reference");
    s->at++;
    if (code > 0xFFFF) {
        out[0] = (wchar_t)(0xD800 + ((code - 0x10000) >> 10));
        out[1] = (wchar_t)(0xDC00 + ((code - 0x10000) & 0x3FF));
        *count = 2;
    } else {
        out[0] = (wchar_t)code;
    }
    return TRUE;
}

static BOOL take_attribute(scanner *s, lab_node *node)
{
    lab_attribute *attribute = lab_alloc(sizeof *attribute), *other;
    wchar_t quote, piece[2];
    size_t used = 0, count;

    attribute->line = s->line;
    attribute->name = take_name(s);
    if (node->last_attribute)
        node->last_attribute->next = attribute;
    else
        node->attributes = attribute;
    node->last_attribute = attribute;
    if (!attribute->name)
        return fail(s, L"attribute name expected");
    for (other = node->attributes; other != attribute; other = other->next)
        if (!wcscmp(other->name, attribute->name))
            return fail(s, L"duplicate attribute");
    skip_space(s);
    if (!looking_at(s, L"="))
        return fail(s, L"'=' expected");
    advance(s, 1);
    skip_space(s);
    quote = s->at < s->length ? s->text[s->at] : 0;
    if (quote != L'"' && quote != L'\'')
        return fail(s, L"quoted attribute value expected");
    s->at++;
    attribute->start = attribute->end = s->at;
    for (count = s->at; count < s->length && s->text[count] != quote; count++)
        ;
    attribute->value = lab_alloc((count - s->at + 1) * sizeof(wchar_t));
    while (s->at < s->length && s->text[s->at] != quote) {
        if (s->text[s->at] == L'<')
            return fail(s, L"'<' inside an attribute value");
        if (!take_character(s, piece, &count))
            return FALSE;
        memcpy(attribute->value + used, piece, count * sizeof(wchar_t));
        used += count;
    }
    if (s->at >= s->length)
        return fail(s, L"unexpected end of file");
    attribute->end = s->at++;
    return TRUE;
}

/* From '<' of a start tag to its '>'; *closed when it ends with '/>'. */
static lab_node *take_start_tag(scanner *s, lab_node *parent, BOOL *closed)
{
    lab_node *node = lab_alloc(sizeof *node);

    node->line = s->line;
    node->parent = parent;
    if (!parent)
        s->document->root = node;
    else if (parent->last_child)
        parent->last_child->next = node;
    else
        parent->child = node;
    if (parent)
        parent->last_child = node;
    advance(s, 1);
    node->name = take_name(s);
    if (!node->name) {
        fail(s, L"element name expected");
        return NULL;
    }
    for (;;) {
        BOOL space = s->at < s->length && is_space(s->text[s->at]);
        skip_space(s);
        *closed = looking_at(s, L"/>");
        if (*closed || looking_at(s, L">")) {
            advance(s, *closed ? 2 : 1);
            return node;
        }
        if (!space) {
            fail(s, L"white space or '>' expected");
            return NULL;
        }
        if (!take_attribute(s, node))
            return NULL;
    }
}

static BOOL scan(scanner *s)
{
    lab_node *node = NULL;
    BOOL closed;

    if (looking_at(s, L"<?xml") && !skip_behind(s, 5, L"?>", FALSE))
        return FALSE;
    while (s->at < s->length) {
        if (looking_at(s, L"<!--")) {
            if (!skip_behind(s, 4, L"-->", TRUE))
                return FALSE;
        } else if (looking_at(s, L"<?")) {
            if (looking_at(s, L"<?xml") && (s->at + 5 >= s->length || !is_name(s->text[s->at + 5], FALSE)))
                return fail(s, L"XML declaration not at the beginning");
            if (!skip_behind(s, 2, L"?>", FALSE))
                return FALSE;
        } else if (looking_at(s, L"<![CDATA[")) {
            if (!node)
                return fail(s, L"text outside the root element");
            if (!skip_behind(s, 9, L"]]>", FALSE))
                return FALSE;
        } else if (looking_at(s, L"<!")) {
            return fail(s, L"a document type declaration is not allowed");
        } else if (looking_at(s, L"</")) {
            wchar_t *name;
            BOOL same;
            advance(s, 2);
            name = take_name(s);
            same = name && node && !wcscmp(name, node->name);
            free(name);
            skip_space(s);
            if (!same || !looking_at(s, L">"))
                return fail(s, L"end tag does not match the start tag");
            advance(s, 1);
            node = node->parent;
        } else if (looking_at(s, L"<")) {
            lab_node *child;
            if (!node && s->document->root)
                return fail(s, L"more than one root element");
            child = take_start_tag(s, node, &closed);
            if (!child)
                return FALSE;
            if (!closed)
                node = child;
        } else {
            wchar_t piece[2];
            size_t count;
            if (!node && !is_space(s->text[s->at]))
                return fail(s, L"text outside the root element");
            if (!take_character(s, piece, &count))
                return FALSE;
        }
    }
    if (node || !s->document->root)
        return fail(s, L"unexpected end of file");
    return TRUE;
}

lab_document *lab_xml_parse(const BYTE *bytes, DWORD size)
{
    lab_document *document = lab_alloc(sizeof *document);
    scanner s;
    int count;
    DWORD i;

    document->encoding = LAB_UTF8;
    if (size >= 2 && ((bytes[0] == 0xFF && bytes[1] == 0xFE) || (bytes[0] == 0xFE && bytes[1] == 0xFF))) {
        document->encoding = bytes[0] == 0xFF ? LAB_UTF16LE : LAB_UTF16BE;
        document->length = (size - 2) / 2;
        document->text = lab_alloc((document->length + 1) * sizeof(wchar_t));
        for (i = 0; i < document->length; i++) {
            BYTE a = bytes[2 + 2 * i], b = bytes[3 + 2 * i];
            document->text[i] = (wchar_t)(document->encoding == LAB_UTF16LE ? a | b << 8 : b | a << 8);
        }
        if (size % 2) {
            document->error = L"odd number of bytes in a UTF-16 file";
            document->error_line = 1;
            return document;
        }
    } else {
        if (size >= 3 && bytes[0] == 0xEF && bytes[1] == 0xBB && bytes[2] == 0xBF) {
            document->encoding = LAB_UTF8_BOM;
            bytes += 3;
            size -= 3;
        }
        count = size ? MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, (const char *)bytes, (int)size, NULL, 0) : 0;
        document->text = lab_alloc(((size_t)count + 1) * sizeof(wchar_t));
        if (!count) {
            document->error = size ? L"bytes that are not UTF-8" : L"the file is empty";
            document->error_line = size ? 1 : 0;
            if (!size)
                document->error_line = 1;
            return document;
        }
        MultiByteToWideChar(CP_UTF8, 0, (const char *)bytes, (int)size, document->text, count);
        document->length = (size_t)count;
    }
    s.document = document;
    s.text = document->text;
    s.length = document->length;
    s.at = 0;
    s.line = 1;
    scan(&s);
    return document;
}

static void free_node(lab_node *node)
{
    while (node) {
        lab_node *next = node->next;
        lab_attribute *attribute = node->attributes;
        while (attribute) {
            lab_attribute *following = attribute->next;
            free(attribute->name);
            free(attribute->value);
            free(attribute);
            attribute = following;
        }
        free_node(node->child);
        free(node->name);
        free(node);
        node = next;
    }
}

void lab_xml_free(lab_document *document)
{
    if (!document)
        return;
    free_node(document->root);
    free(document->text);
    free(document);
}

BYTE *lab_xml_encode(const lab_document *document, const wchar_t *text, size_t length, DWORD *size)
{
    BYTE *out;
    size_t i;
    int count;

    if (document->encoding == LAB_UTF16LE || document->encoding == LAB_UTF16BE) {
        BOOL little = document->encoding == LAB_UTF16LE;
        out = lab_alloc(length * 2 + 2);
        out[little ? 0 : 1] = 0xFF;
        out[little ? 1 : 0] = 0xFE;
        for (i = 0; i < length; i++) {
            out[2 + 2 * i + (little ? 0 : 1)] = (BYTE)text[i];
            out[2 + 2 * i + (little ? 1 : 0)] = (BYTE)(text[i] >> 8);
        }
        *size = (DWORD)(length * 2 + 2);
        return out;
    }
    i = document->encoding == LAB_UTF8_BOM ? 3 : 0;
    count = WideCharToMultiByte(CP_UTF8, 0, text, (int)length, NULL, 0, NULL, NULL);
    out = lab_alloc((size_t)count + 3);
    if (i)
        memcpy(out, "\xEF\xBB\xBF", 3);
    WideCharToMultiByte(CP_UTF8, 0, text, (int)length, (char *)out + i, count, NULL, NULL);
    *size = (DWORD)(i + (size_t)count);
    return out;
}

lab_node *lab_child(const lab_node *node, const wchar_t *name)
{
    lab_node *child;

    for (child = node ? node->child : NULL; child; child = child->next)
        if (!wcscmp(child->name, name))
            return child;
    return NULL;
}

lab_node *lab_path(const lab_node *node, const wchar_t *path)
{
    wchar_t part[64];
    const wchar_t *slash;

    while (node && *path) {
        slash = wcschr(path, L'/');
        lstrcpynW(part, path, slash ? (int)(slash - path) + 1 : 64);
        node = lab_child(node, part);
        path = slash ? slash + 1 : L"";
    }
    return (lab_node *)node;
}

const wchar_t *lab_get(const lab_node *node, const wchar_t *name, const wchar_t *otherwise)
{
    lab_attribute *attribute;

    for (attribute = node ? node->attributes : NULL; attribute; attribute = attribute->next)
        if (!wcscmp(attribute->name, name))
            return attribute->value;
    return otherwise;
}

lab_node *lab_next_node(const lab_node *root, const lab_node *node)
{
    if (node->child)
        return node->child;
    while (node && node != root) {
        if (node->next)
            return node->next;
        node = node->parent;
    }
    return NULL;
}

/* ---- configuration --------------------------------------------------------------------------------------------- */

void lab_config_folder(wchar_t *out, DWORD size)
{
    lab_expand(L"%windir%\\System32\\inetsrv\\config", out, size);
}

DWORD lab_config_path(wchar_t *out, DWORD size)
{
    wchar_t folder[MAX_PATH], expanded[MAX_PATH], *path;
    lab_document *document;
    lab_node *node;
    DWORD error;

    lab_config_folder(folder, MAX_PATH);
    path = lab_format(L"%ls\\redirection.config", folder);
    document = lab_config_load(path, &error);
    free(path);
    node = document && !document->error ? lab_child(document->root, L"configurationRedirection") : NULL;
    if (document && document->error)
        error = ERROR_INVALID_DATA;
    if (node && lab_true(lab_get(node, L"enabled", L"false"))) {
        lab_expand(lab_get(node, L"path", L""), expanded, MAX_PATH);
        lstrcpynW(folder, expanded, MAX_PATH);
    }
    lab_xml_free(document);
    swprintf(out, size, L"%ls\\applicationHost.config", folder);
    return error == ERROR_FILE_NOT_FOUND ? 0 : error;
}

lab_document *lab_config_load(const wchar_t *path, DWORD *error)
{
    lab_document *document;
    BYTE *bytes;
    DWORD size;

    *error = lab_read_file(path, &bytes, &size);
    if (*error)
        return NULL;
    document = lab_xml_parse(bytes, size);
    free(bytes);
    if (!document->error && wcscmp(document->root->name, L"configuration")) {
        document->error = L"the root element is not <configuration>";
        document->error_line = document->root->line;
    }
    return document;
}

lab_node *lab_app_host(const lab_document *document, const wchar_t *section)
{
    return lab_child(lab_child(document->root, L"system.applicationHost"), section);
}

BOOL lab_true(const wchar_t *text)
{
    return !_wcsicmp(text, L"true");
}

BOOL lab_is_protected(const wchar_t *value)
{
    size_t length = wcslen(value);
    const wchar_t *colon;

    if (length < 10 || wcsncmp(value, L"[enc:", 5) || wcscmp(value + length - 5, L":enc]"))
        return FALSE;
    colon = wcschr(value + 5, L':');
    return colon && colon + 1 < value + length - 5; /* [enc:X::enc] is a default, not a secret */
}

lab_node *lab_provider(const lab_document *document, const wchar_t *name)
{
    lab_node *node = lab_path(document->root, L"configProtectedData/providers");

    for (node = node ? node->child : NULL; node; node = node->next)
        if (!wcscmp(node->name, L"add") && !_wcsicmp(lab_get(node, L"name", L""), name))
            return node;
    return NULL;
}

const wchar_t *lab_pool_get(const lab_node *pools, const lab_node *pool, const wchar_t *element, const wchar_t *name,
                            const wchar_t *otherwise)
{
    lab_node *defaults = lab_child(pools, L"applicationPoolDefaults");
    const wchar_t *value = lab_get(element ? lab_child(pool, element) : pool, name, NULL);

    return value ? value : lab_get(element ? lab_child(defaults, element) : defaults, name, otherwise);
}

/* ---- events, faults, state ------------------------------------------------------------------------------------- */

static wchar_t *json_text(const wchar_t *text)
{
    wchar_t *out = lab_alloc((wcslen(text) * 6 + 1) * sizeof(wchar_t)), *at = out;

    for (; *text; text++) {
        if (*text == L'"' || *text == L'\\') {
            *at++ = L'\\';
            *at++ = *text;
        } else if (*text < 0x20) {
            at += swprintf(at, 7, L"\\u%04x", *text);
        } else {
            *at++ = *text;
        }
    }
    return out;
}

void lab_event(const wchar_t *source, int id, const wchar_t *level, DWORD data, const wchar_t *format, ...)
{
    wchar_t *message, *escaped, *line, binary[16] = L"";
    SYSTEMTIME now;
    HANDLE file;
    va_list list;
    char *bytes;
    DWORD done;

    va_start(list, format);
    message = format_list(format, list);
    va_end(list);
    escaped = json_text(message);
    GetSystemTime(&now);
    if (data) /* as the event viewer shows it: the bytes of the little-endian word */
        swprintf(binary, 16, L"%02lX%02lX%02lX%02lX", data & 0xFF, data >> 8 & 0xFF, data >> 16 & 0xFF, data >> 24);
    line = lab_format(L"{\"time\": \"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\", \"source\": \"%ls\", \"id\": %d, "
                      L"\"level\": \"%ls\", \"data\": \"%ls\", \"hresult\": \"0x%08lX\", \"message\": \"%ls\"}\n",
                      now.wYear, now.wMonth, now.wDay, now.wHour, now.wMinute, now.wSecond, now.wMilliseconds,
                      source, id, level, binary, data, escaped);
    bytes = lab_utf8(line);
    CreateDirectoryW(LAB_ROOT, NULL);
    file = CreateFileW(LAB_EVENTS, FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                       OPEN_ALWAYS, 0, NULL);
    if (file != INVALID_HANDLE_VALUE) {
        WriteFile(file, bytes, (DWORD)strlen(bytes), &done, NULL);
        CloseHandle(file);
    }
    free(bytes);
    free(line);
    free(escaped);
    free(message);
}

static BOOL number_of(const char *text, const char *name, DWORD *value)
{
    const char *at = strstr(text, name);

    if (!at)
        return FALSE;
    *value = strtoul(at + strlen(name), NULL, 0);
    return TRUE;
}

BOOL lab_fault_there(const wchar_t *format, ...)
{
    wchar_t *name, *path;
    va_list list;
    BOOL there;

    va_start(list, format);
    name = format_list(format, list);
    va_end(list);
    path = lab_format(LAB_FAULTS L"\\%ls", name);
    there = lab_exists(path);
    free(name);
    free(path);
    return there;
}

BOOL lab_fault_on(lab_fault *fault, const wchar_t *format, ...)
{
    wchar_t *name, *path;
    char *text, *first, again[96];
    va_list list;
    BYTE *bytes = NULL;
    DWORD size, times, error;

    va_start(list, format);
    name = format_list(format, list);
    va_end(list);
    path = lab_format(LAB_FAULTS L"\\%ls", name);
    free(name);
    memset(fault, 0, sizeof *fault);
    error = lab_read_file(path, &bytes, &size);
    if (error) {
        free(path);
        return FALSE;
    }
    text = (char *)bytes;
    if (!number_of(text, "ms=", &fault->ms)) /* a bare number will do */
        fault->ms = strtoul(text, &first, 0);
    number_of(text, "code=", &fault->code);
    if (number_of(text, "times=", &times)) {
        if (times <= 1) {
            DeleteFileW(path);
        } else {
            sprintf(again, "ms=%lu code=%lu times=%lu\n", fault->ms, fault->code, times - 1);
            lab_write_file(path, again, (DWORD)strlen(again));
        }
    }
    free(bytes);
    free(path);
    return TRUE;
}

BOOL lab_ask(const wchar_t *pipe, const char *request, char **reply)
{
    DWORD size = 0;
    int attempt;

    *reply = lab_alloc(LAB_PIPE_SIZE + 1);
    for (attempt = 0; attempt < 20; attempt++) {
        if (CallNamedPipeW(pipe, (void *)request, (DWORD)strlen(request), *reply, LAB_PIPE_SIZE, &size, 2000)) {
            (*reply)[size] = 0;
            return TRUE;
        }
        if (GetLastError() == ERROR_FILE_NOT_FOUND)
            break;
        Sleep(25); /* busy, or the server is between two clients */
    }
    free(*reply);
    *reply = NULL;
    return FALSE;
}
