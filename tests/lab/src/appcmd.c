/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Stand-in for inetsrv\appcmd.exe: what the collection asks of it, with the texts of the real one.
 *
 *   appcmd list apppool|site|wp [NAME] [/xml] [/text:ATTRIBUTE] [/state:STATE] [/name:NAME]
 *   appcmd start|stop apppool [NAME | /apppool.name:NAME]       appcmd recycle apppool ...
 *   appcmd start|stop site [NAME | /site.name:NAME]
 *   appcmd list backups [NAME]        appcmd add|restore|delete backup [NAME] [/stop:true|false]
 *
 * start and stop change the runtime state only. States come from the running services; while WAS (pools) or W3SVC
 * (sites) does not run every state is Unknown, start and stop fail with 0x80070426 and `list wp` lists nothing. Exit
 * codes: 0, 1 for a list without a hit, else the Win32 part of the error. ERROR lines go to standard output, as in the
 * real one; with /xml as <appcmd><ERROR .../></appcmd>.
 */
#include "lab.h"
#include <fcntl.h>
#include <io.h>

static BOOL as_xml;

static void put(const wchar_t *format, ...)
{
    wchar_t text[8192];
    char *narrow;
    va_list list;

    va_start(list, format);
    _vsnwprintf(text, 8191, format, list);
    text[8191] = 0;
    va_end(list);
    narrow = lab_utf8(text);
    fputs(narrow, stdout);
    free(narrow);
}

static wchar_t *escaped(const wchar_t *text)
{
    wchar_t *out = lab_alloc((wcslen(text) * 6 + 1) * sizeof(wchar_t)), *at = out;

    for (; *text; text++) {
        if (*text == L'&')
            at += swprintf(at, 7, L"&amp;");
        else if (*text == L'<')
            at += swprintf(at, 7, L"&lt;");
        else if (*text == L'>')
            at += swprintf(at, 7, L"&gt;");
        else if (*text == L'"')
            at += swprintf(at, 7, L"&quot;");
        else if (*text < 0x20)
            at += swprintf(at, 7, L"&#x%X;", *text);
        else
            *at++ = *text;
    }
    return out;
}

static int fail(DWORD error, int code, const wchar_t *format, ...)
{
    wchar_t text[2048], *safe;
    va_list list;

    va_start(list, format);
    _vsnwprintf(text, 2047, format, list);
    text[2047] = 0;
    va_end(list);
    if (as_xml) {
        safe = escaped(text);
        put(L"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<appcmd>\r\n    <ERROR ");
        if (error)
            put(L"hresult=\"%08lx\" ", error);
        put(L"message=\"%ls\" />\r\n</appcmd>\r\n", safe);
        free(safe);
    } else if (error) {
        put(L"ERROR ( hresult:%08lx, message:%ls )\r\n", error, text);
    } else {
        put(L"ERROR ( message:%ls )\r\n", text);
    }
    return code;
}

/* The system's texts, which Wine words differently. */
static int command_failed(DWORD error)
{
    static const struct { DWORD error; const wchar_t *text; } texts[] = {
        {0x80070005, L"Access is denied."},
        {0x8007000D, L"The data is invalid."},
        {0x80070020, L"The process cannot access the file because it is being used by another process."},
        {0x800700B7, L"Cannot create a file when that file already exists."},
        {0x80070420, L"An instance of the service is already running."},
        {0x80070426, L"The service has not been started."},
        {0x80070490, L"Element not found."},
        {0x8007052E, L"The user name or password is incorrect."},
        {0x80090005, L"Bad Data."},
        {0x80090016, L"Keyset does not exist"}};
    const wchar_t *text = L"Unknown error.";
    int code = error & 0xFFFF;
    size_t i;

    for (i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].error == error)
            text = texts[i].text;
    return fail(error, code ? code : 1, L"Command execution failed.\r\n%ls\r\n", text);
}

/* The value of column `column` in the line of a reply whose column `key` is the name. */
static wchar_t *look_up(const char *reply, int key, const wchar_t *name, int column)
{
    char *copy = reply ? _strdup(reply) : NULL, *line, *next, *narrow = lab_utf8(name);
    wchar_t *found = NULL;

    for (line = copy; line && *line && !found; line = next) {
        char *fields[4] = {"", "", "", ""}, *at = line;
        int i;
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        for (i = 0; at && i < 4; i++) {
            fields[i] = at;
            at = strchr(at, '\t');
            if (at)
                *at++ = 0;
        }
        if (!_stricmp(fields[key], narrow))
            found = lab_wide(fields[column]);
    }
    free(copy);
    free(narrow);
    return found ? found : lab_wcsdup(reply ? L"Stopped" : L"Unknown");
}

typedef struct {
    const wchar_t *name, *state, *text;
    int hits;
} filter;

/* One object; attributes are pairs of name and value, the first of them the object's name. */
static void show(filter *f, const wchar_t *kind, const wchar_t *plain, const wchar_t *const *pairs)
{
    const wchar_t *state = L"";
    int i;

    for (i = 0; pairs[i]; i += 2)
        if (!_wcsicmp(pairs[i], L"state"))
            state = pairs[i + 1];
    if ((f->name && _wcsicmp(f->name, pairs[1])) || (f->state && _wcsicmp(f->state, state)))
        return;
    f->hits++;
    if (f->text) {
        const wchar_t *dot;
        for (i = 0; pairs[i]; i += 2) {
            dot = wcschr(pairs[i], L'.');
            if (!_wcsicmp(pairs[i], f->text) || (dot && !_wcsicmp(dot + 1, f->text)))
                put(L"%ls\r\n", pairs[i + 1]);
        }
    } else if (as_xml) {
        put(L"    <%ls", kind);
        for (i = 0; pairs[i]; i += 2) {
            wchar_t *safe = escaped(pairs[i + 1]);
            put(L" %ls=\"%ls\"", pairs[i], safe);
            free(safe);
        }
        put(L" />\r\n");
    } else {
        put(L"%ls \"%ls\" (%ls)\r\n", kind, pairs[1], plain);
    }
}

static void list_pools(const lab_document *document, filter *f)
{
    lab_node *section = lab_app_host(document, L"applicationPools"), *node;
    char *reply = NULL;

    lab_ask(LAB_WAS_PIPE, "pools", &reply);
    for (node = section ? section->child : NULL; node; node = node->next) {
        const wchar_t *name = lab_get(node, L"name", L"");
        const wchar_t *mode = lab_pool_get(section, node, NULL, L"managedPipelineMode", L"Integrated");
        const wchar_t *version = lab_pool_get(section, node, NULL, L"managedRuntimeVersion", L"v4.0");
        wchar_t *state, *plain;
        if (wcscmp(node->name, L"add"))
            continue;
        state = look_up(reply, 0, name, 1);
        plain = lab_format(L"MgdVersion:%ls,MgdMode:%ls,state:%ls", version, mode, state);
        {
            const wchar_t *pairs[] = {L"APPPOOL.NAME", name, L"PipelineMode", mode, L"RuntimeVersion", version,
                                      L"state", state, NULL};
            show(f, L"APPPOOL", plain, pairs);
        }
        free(plain);
        free(state);
    }
    free(reply);
}

static void list_sites(const lab_document *document, filter *f)
{
    lab_node *section = lab_app_host(document, L"sites"), *node, *binding;
    char *reply = NULL;

    lab_ask(LAB_W3SVC_PIPE, "sites", &reply);
    for (node = section ? section->child : NULL; node; node = node->next) {
        const wchar_t *name = lab_get(node, L"name", L""), *id = lab_get(node, L"id", L"");
        wchar_t *state, *plain, *bindings = lab_wcsdup(L""), *longer;
        if (wcscmp(node->name, L"site")) {
            free(bindings);
            continue;
        }
        binding = lab_child(node, L"bindings");
        for (binding = binding ? binding->child : NULL; binding; binding = binding->next) {
            if (wcscmp(binding->name, L"binding"))
                continue;
            longer = lab_format(L"%ls%ls%ls/%ls", bindings, *bindings ? L"," : L"", lab_get(binding, L"protocol", L""),
                                lab_get(binding, L"bindingInformation", L""));
            free(bindings);
            bindings = longer;
        }
        state = look_up(reply, 1, name, 2);
        plain = lab_format(L"id:%ls,bindings:%ls,state:%ls", id, bindings, state);
        {
            const wchar_t *pairs[] = {L"SITE.NAME", name, L"SITE.ID", id, L"bindings", bindings, L"state", state, NULL};
            show(f, L"SITE", plain, pairs);
        }
        free(plain);
        free(state);
        free(bindings);
    }
    free(reply);
}

static void list_workers(filter *f)
{
    char *reply = NULL, *line, *next;

    if (!lab_ask(LAB_W3SVC_PIPE, "workers", &reply))
        return;
    for (line = reply; *line; line = next) {
        wchar_t *number, *pool, *plain;
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        else
            next = line + strlen(line);
        if (!strchr(line, '\t'))
            continue;
        pool = lab_wide(strchr(line, '\t') + 1);
        *strchr(line, '\t') = 0;
        number = lab_wide(line);
        plain = lab_format(L"applicationPool:%ls", pool);
        {
            const wchar_t *pairs[] = {L"WP.NAME", number, L"APPPOOL.NAME", pool, NULL};
            show(f, L"WP", plain, pairs);
        }
        free(plain);
        free(number);
        free(pool);
    }
    free(reply);
}

static BOOL known(const lab_document *document, BOOL pool, const wchar_t *name)
{
    lab_node *node = lab_app_host(document, pool ? L"applicationPools" : L"sites");

    for (node = node ? node->child : NULL; node; node = node->next)
        if (!wcscmp(node->name, pool ? L"add" : L"site") && !_wcsicmp(lab_get(node, L"name", L""), name))
            return TRUE;
    return FALSE;
}

static int act(const lab_document *document, const wchar_t *verb, BOOL pool, const wchar_t *name)
{
    wchar_t *wide;
    char *request, *reply;
    DWORD error = 0;

    if (!name)
        return fail(0, 87, L"Must specify the %ls to %ls.", pool ? L"application pool" : L"site", verb);
    if (!known(document, pool, name))
        return fail(0, 1168, L"Cannot find %ls object with identifier \"%ls\".", pool ? L"APPPOOL" : L"SITE", name);
    wide = lab_format(L"%ls-%ls\t%ls", verb, pool ? L"pool" : L"site", name);
    request = lab_utf8(wide);
    free(wide);
    if (!lab_ask(pool ? LAB_WAS_PIPE : LAB_W3SVC_PIPE, request, &reply))
        return command_failed(0x80070426);
    if (!strncmp(reply, "ERR ", 4))
        error = strtoul(reply + 4, NULL, 16);
    free(reply);
    free(request);
    if (error)
        return command_failed(error);
    put(L"\"%ls\" successfully %ls\r\n", name,
        !_wcsicmp(verb, L"start") ? L"started" : !_wcsicmp(verb, L"stop") ? L"stopped" : L"recycled");
    return 0;
}

/* ---- backups --------------------------------------------------------------------------------------------------- */

static const wchar_t *const backup_files[] = {L"config\\administration.config", L"config\\applicationHost.config",
                                              L"config\\redirection.config", L"MBSchema.xml", L"MetaBase.xml", NULL};

static wchar_t *inetsrv(const wchar_t *below)
{
    wchar_t folder[MAX_PATH];

    lab_config_folder(folder, MAX_PATH);
    *wcsrchr(folder, L'\\') = 0;
    return lab_format(L"%ls\\%ls", folder, below);
}

static int by_name(const void *one, const void *two)
{
    return _wcsicmp(*(wchar_t *const *)one, *(wchar_t *const *)two);
}

/* The folders below `root` that match, as BACKUP objects. */
static int list_folders(const wchar_t *root, const wchar_t *pattern, const wchar_t *name)
{
    wchar_t *search = lab_format(L"%ls\\%ls", root, pattern), *names[1024];
    WIN32_FIND_DATAW data;
    HANDLE find = FindFirstFileW(search, &data);
    int hits = 0, i;

    free(search);
    if (find == INVALID_HANDLE_VALUE)
        return 0;
    do {
        if ((data.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) && data.cFileName[0] != L'.' && hits < 1024
            && (!name || !_wcsicmp(name, data.cFileName)))
            names[hits++] = lab_wcsdup(data.cFileName);
    } while (FindNextFileW(find, &data));
    FindClose(find);
    qsort(names, hits, sizeof *names, by_name);
    for (i = 0; i < hits; i++) {
        if (as_xml)
            put(L"    <BACKUP BACKUP.NAME=\"%ls\" />\r\n", names[i]);
        else
            put(L"BACKUP \"%ls\"\r\n", names[i]);
        free(names[i]);
    }
    return hits;
}

/* Copies what is there of the files of a backup; to_backup: from the live places, else back to them. */
static DWORD copy_backup(const wchar_t *folder, BOOL to_backup)
{
    int i, copied = 0;

    for (i = 0; backup_files[i]; i++) {
        const wchar_t *base = wcsrchr(backup_files[i], L'\\');
        wchar_t *live = inetsrv(backup_files[i]), *kept = lab_format(L"%ls\\%ls", folder, base ? base + 1 : backup_files[i]);
        const wchar_t *from = to_backup ? live : kept, *to = to_backup ? kept : live;
        DWORD error = 0;

        if (lab_exists(from)) {
            copied++;
            if (!CopyFileW(from, to, FALSE))
                error = GetLastError();
        }
        free(live);
        free(kept);
        if (error)
            return lab_hresult(error);
    }
    return copied ? 0 : 0x80070002;
}

static int backups(const wchar_t *verb, const wchar_t *name)
{
    wchar_t *root = inetsrv(L"backup"), *folder, made[32], history[MAX_PATH];
    DWORD error;
    SYSTEMTIME now;
    int i;

    lab_expand(L"%SystemDrive%\\inetpub\\history", history, MAX_PATH);
    if (!_wcsicmp(verb, L"list")) {
        int hits;
        if (as_xml)
            put(L"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<appcmd>\r\n");
        hits = list_folders(root, L"*", name) + list_folders(history, L"CFGHISTORY_*", name);
        if (as_xml)
            put(L"</appcmd>\r\n");
        return hits ? 0 : 1;
    }
    if (!_wcsicmp(verb, L"add")) {
        if (!name) {
            GetLocalTime(&now);
            swprintf(made, 32, L"%04d%02d%02dT%02d%02d%02d", now.wYear, now.wMonth, now.wDay, now.wHour, now.wMinute, now.wSecond);
            name = made;
        }
        folder = lab_format(L"%ls\\%ls", root, name);
        if (lab_exists(folder))
            return command_failed(0x800700B7);
        lab_make_folders(folder);
        error = copy_backup(folder, TRUE);
        if (error)
            return command_failed(error);
        put(L"BACKUP object \"%ls\" added\r\n", name);
        return 0;
    }
    if (!name)
        return fail(0, 87, L"Must specify the backup to %ls.", verb);
    folder = lab_format(L"%ls\\%ls", !_wcsnicmp(name, L"CFGHISTORY_", 11) ? history : root, name);
    if (!lab_exists(folder))
        return fail(0, 1168, L"Cannot find BACKUP object with identifier \"%ls\".", name);
    if (!_wcsicmp(verb, L"restore")) {
        error = copy_backup(folder, FALSE);
        if (error)
            return command_failed(error);
        put(L"Restored configuration from backup \"%ls\"\r\n", name);
        return 0;
    }
    if (!_wcsicmp(verb, L"delete")) {
        for (i = 0; backup_files[i]; i++) {
            const wchar_t *base = wcsrchr(backup_files[i], L'\\');
            DeleteFileW(lab_format(L"%ls\\%ls", folder, base ? base + 1 : backup_files[i]));
        }
        if (!RemoveDirectoryW(folder))
            return command_failed(lab_hresult(GetLastError()));
        put(L"BACKUP object \"%ls\" deleted\r\n", name);
        return 0;
    }
    return fail(0, 87, L"Unknown command \"%ls\".", verb);
}

/* The value of /NAME:VALUE, NULL when the word is another. */
static const wchar_t *option(const wchar_t *word, const wchar_t *name)
{
    size_t length = wcslen(name);
    if ((*word != L'/' && *word != L'-') || _wcsnicmp(word + 1, name, length))
        return NULL;
    return word[1 + length] == L':' ? word + length + 2 : word[1 + length] ? NULL : L"";
}

int wmain(int count, wchar_t **words)
{
    const wchar_t *verb = count > 1 ? words[1] : L"", *object = count > 2 ? words[2] : L"", *value;
    filter f = {NULL, NULL, NULL, 0};
    BOOL pool, site, workers, list = !_wcsicmp(verb, L"list");
    wchar_t path[MAX_PATH];
    lab_document *document;
    DWORD error;
    int i;

    _setmode(_fileno(stdout), _O_BINARY);
    for (i = 3; i < count; i++) {
        if ((value = option(words[i], L"xml")) != NULL)
            as_xml = TRUE;
        else if ((value = option(words[i], L"text")) != NULL)
            f.text = value;
        else if ((value = option(words[i], L"state")) != NULL)
            f.state = value;
        else if ((value = option(words[i], L"apppool.name")) != NULL || (value = option(words[i], L"site.name")) != NULL
                 || (value = option(words[i], L"name")) != NULL)
            f.name = value;
        else if ((value = option(words[i], L"stop")) != NULL)
            ; /* the lab's services react to the file by themselves */
        else if (words[i][0] != L'/' && words[i][0] != L'-')
            f.name = words[i];
        else
            return fail(0, 87, L"The attribute \"%ls\" is not supported in the current command usage.", words[i] + 1);
    }
    if (!_wcsicmp(object, L"backup") || !_wcsicmp(object, L"backups"))
        return backups(verb, f.name);
    pool = !_wcsicmp(object, L"apppool") || !_wcsicmp(object, L"apppools");
    site = !_wcsicmp(object, L"site") || !_wcsicmp(object, L"sites");
    workers = !_wcsicmp(object, L"wp") || !_wcsicmp(object, L"wps");
    if (!pool && !site && !workers)
        return fail(0, 87, L"Object '%ls' is not supported.  Run 'appcmd.exe /?' to display supported objects.", object);
    if (!list && (workers || (_wcsicmp(verb, L"start") && _wcsicmp(verb, L"stop") && (!pool || _wcsicmp(verb, L"recycle")))))
        return fail(0, 87, L"Unknown command \"%ls\".", verb);
    error = lab_config_path(path, MAX_PATH);
    if (error)
        return fail(0, 13, L"Configuration error\r\nFilename: redirection.config\r\nLine Number: 0\r\nDescription: Cannot read "
                           L"configuration file%ls\r\n.",
                    error == ERROR_ACCESS_DENIED ? L" due to insufficient permissions" : L"");
    document = lab_config_load(path, &error);
    if (!document || document->error)
        return fail(0, document ? 13 : (int)error,
                    L"Configuration error\r\nFilename: \\\\?\\%ls\r\nLine Number: %d\r\nDescription: %ls\r\n.", path,
                    document ? document->error_line : 0,
                    document ? L"Configuration file is not well-formed XML"
                    : error == ERROR_ACCESS_DENIED ? L"Cannot read configuration file due to insufficient permissions"
                                                   : L"Cannot read configuration file");
    if (!list)
        return act(document, _wcslwr(words[1]), pool, f.name);
    if (as_xml)
        put(L"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<appcmd>\r\n");
    if (pool)
        list_pools(document, &f);
    else if (site)
        list_sites(document, &f);
    else
        list_workers(&f);
    if (as_xml)
        put(L"</appcmd>\r\n");
    return f.hits ? 0 : 1;
}
