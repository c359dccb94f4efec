/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * W3SVC and its workers: answers HTTP on the bindings of the sites and opens, at the first request, the values that the
 * worker of IIS would read: from the pool's own copy of the configuration, as a member of IIS_IUSRS.
 *
 * Answers: 200 with a few lines of text; 404 for what no started site is bound to; 503 for a pool that does not run;
 * 500.19 with "Failed to decrypt attribute 'password'" and the HRESULT for a value that does not open (event 2307). https
 * and IPv6 bindings are skipped. A worker keeps what it found until its pool is started anew. It has no process of its
 * own: its number is made up.
 *
 * Requests on \\.\pipe\lab-w3svc (fields separated by tabs, text in UTF-8):
 *   sites                    -> one line per site: id, name, Started|Stopped
 *   workers                  -> one line per worker: number, pool
 *   start-site NAME, stop-site NAME  -> OK, or ERR and the HRESULT (80070420, 80070426, 80070490, 800700B7: a started
 *                               site has the same binding)
 */
#include "iissvc.h"
#include <ws2tcpip.h>

typedef struct site {
    wchar_t *id, *name;
    BOOL started, by_hand;
    lab_node *node;
    struct site *next;
} site;

typedef struct {
    ULONG address; /* network order; 0: all */
    unsigned short port;
    const wchar_t *host;
} binding;

typedef struct listener {
    ULONG address;
    unsigned short port;
    SOCKET socket;
    BOOL wanted;
    struct listener *next;
} listener;

typedef struct outcome {
    size_t at; /* where the value stands in the worker's copy */
    DWORD error;
    struct outcome *next;
} outcome;

typedef struct worker {
    wchar_t *pool;
    unsigned long long stamp;
    int number;
    DWORD forced; /* by a fault */
    lab_document *copy;
    outcome *outcomes;
    struct worker *next;
} worker;

static CRITICAL_SECTION lock;
static site *sites;
static lab_document *config;
static wchar_t config_path[MAX_PATH];
static FILETIME config_time;
static DWORD config_size;
static listener *listeners;
static worker *workers;
static WSAEVENT arrived;

/* ---- sites, bindings, listeners -------------------------------------------------------------------------------- */

static BOOL read_binding(const lab_node *node, binding *out)
{
    wchar_t text[512], *port, *host;

    if (wcscmp(node->name, L"binding") || _wcsicmp(lab_get(node, L"protocol", L""), L"http"))
        return FALSE;
    lstrcpynW(text, lab_get(node, L"bindingInformation", L""), 512);
    host = wcsrchr(text, L':');
    if (!host)
        return FALSE;
    *host = 0;
    port = wcsrchr(text, L':');
    if (!port)
        return FALSE;
    *port++ = 0;
    out->host = wcsrchr(lab_get(node, L"bindingInformation", L""), L':') + 1;
    out->port = (unsigned short)wcstoul(port, NULL, 10);
    out->address = 0;
    if (*text && wcscmp(text, L"*")) {
        char narrow[64];
        WideCharToMultiByte(CP_UTF8, 0, text, -1, narrow, sizeof narrow, NULL, NULL);
        out->address = inet_addr(narrow);
        if (out->address == INADDR_NONE)
            return FALSE;
    }
    return out->port != 0;
}

static lab_node *first_binding(const site *s)
{
    lab_node *node = lab_child(s->node, L"bindings");
    return node ? node->child : NULL;
}

static BOOL collides(const site *s)
{
    lab_node *mine, *theirs;
    binding a, b;
    site *other;

    for (other = sites; other; other = other->next) {
        if (other == s || !other->started)
            continue;
        for (mine = first_binding(s); mine; mine = mine->next)
            for (theirs = first_binding(other); theirs; theirs = theirs->next)
                if (read_binding(mine, &a) && read_binding(theirs, &b) && a.address == b.address && a.port == b.port
                    && !_wcsicmp(a.host, b.host))
                    return TRUE;
    }
    return FALSE;
}

static BOOL all_addresses(unsigned short port)
{
    lab_node *node;
    binding b;
    site *s;

    for (s = sites; s; s = s->next)
        for (node = s->started ? first_binding(s) : NULL; node; node = node->next)
            if (read_binding(node, &b) && b.port == port && !b.address)
                return TRUE;
    return FALSE;
}

static void close_listener(listener **link)
{
    listener *gone = *link;
    *link = gone->next;
    closesocket(gone->socket);
    free(gone);
}

static DWORD want_listener(ULONG address, unsigned short port)
{
    struct sockaddr_in name = {0};
    listener *l;
    BOOL yes = TRUE;
    SOCKET s;

    for (l = listeners; l; l = l->next) {
        if (l->port == port && l->address == address) {
            l->wanted = TRUE;
            return 0;
        }
    }
    s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    name.sin_addr.s_addr = address;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, (char *)&yes, sizeof yes); /* connections of before linger */
    if (bind(s, (struct sockaddr *)&name, sizeof name) || listen(s, 64) || WSAEventSelect(s, arrived, FD_ACCEPT)) {
        DWORD error = (DWORD)WSAGetLastError();
        closesocket(s);
        return error;
    }
    l = lab_alloc(sizeof *l);
    l->address = address;
    l->port = port;
    l->socket = s;
    l->wanted = TRUE;
    l->next = listeners;
    listeners = l;
    return 0;
}

static void rebuild_listeners(void)
{
    listener **link, *l;
    lab_node *node;
    binding b;
    site *s;

    /* A specific address and all addresses cannot both listen: close what goes before opening what comes. */
    for (l = listeners; l; l = l->next)
        l->wanted = FALSE;
    for (l = listeners; l; l = l->next)
        for (s = sites; s; s = s->next)
            for (node = s->started ? first_binding(s) : NULL; node; node = node->next)
                if (read_binding(node, &b) && b.port == l->port
                    && l->address == (all_addresses(b.port) ? 0 : b.address))
                    l->wanted = TRUE;
    for (link = &listeners; *link;) {
        if ((*link)->wanted)
            link = &(*link)->next;
        else
            close_listener(link);
    }
    for (s = sites; s; s = s->next) {
        for (node = s->started ? first_binding(s) : NULL; node; node = node->next) {
            DWORD error;
            if (!read_binding(node, &b))
                continue;
            error = want_listener(all_addresses(b.port) ? 0 : b.address, b.port);
            if (error) {
                lab_event(LAB_W3SVC_SOURCE, 1004, L"Error", lab_hresult(error),
                          L"The World Wide Web Publishing Service (WWW Service) did not register the URL prefix '%ls' for "
                          L"site '%ls'. The site has been disabled. The data field contains the error number.",
                          lab_get(node, L"bindingInformation", L""), s->id);
                s->started = FALSE;
                break;
            }
        }
    }
}

static site *find_site(const wchar_t *name)
{
    site *s;

    for (s = sites; s && _wcsicmp(s->name, name); s = s->next)
        ;
    return s;
}

static DWORD load(void)
{
    WIN32_FILE_ATTRIBUTE_DATA data = {0};
    site *old = sites, *s, *before, **end = &sites;
    lab_document *document, *previous = config;
    wchar_t path[MAX_PATH];
    lab_node *all, *node;
    DWORD error = lab_config_path(path, MAX_PATH);

    if (error)
        return lab_hresult(error);
    GetFileAttributesExW(path, GetFileExInfoStandard, &data);
    config_time = data.ftLastWriteTime;
    config_size = data.nFileSizeLow;
    document = lab_config_load(path, &error);
    if (!document)
        return lab_hresult(error);
    if (document->error) {
        lab_xml_free(document);
        return 0x8007000D;
    }
    wcscpy(config_path, path);
    config = document;
    sites = NULL;
    all = lab_app_host(config, L"sites");
    for (node = all ? all->child : NULL; node; node = node->next) {
        const wchar_t *automatic;
        if (wcscmp(node->name, L"site"))
            continue;
        s = lab_alloc(sizeof *s);
        s->node = node;
        s->name = lab_wcsdup(lab_get(node, L"name", L""));
        s->id = lab_wcsdup(lab_get(node, L"id", L"0"));
        *end = s;
        end = &s->next;
        for (before = old; before && _wcsicmp(before->name, s->name); before = before->next)
            ;
        automatic = lab_get(node, L"serverAutoStart",
                            lab_get(lab_child(all, L"siteDefaults"), L"serverAutoStart", L"true"));
        s->by_hand = before && before->by_hand;
        if (s->by_hand || !lab_true(automatic))
            continue;
        if (collides(s))
            lab_event(LAB_W3SVC_SOURCE, 1007, L"Warning", 0x800700B7,
                      L"The World Wide Web Publishing Service (WWW Service) did not register the URL prefix for site '%ls'. "
                      L"The necessary network binding may already be in use. The site has been disabled. The data field "
                      L"contains the error number.",
                      s->id);
        else
            s->started = TRUE;
    }
    while (old) {
        s = old->next;
        free(old->name);
        free(old->id);
        free(old);
        old = s;
    }
    lab_xml_free(previous);
    rebuild_listeners();
    return 0;
}

/* The site that answers: an address or host of its own goes before the site that takes everything. */
static site *route(ULONG address, unsigned short port, const wchar_t *host)
{
    int best = -1;
    site *found = NULL, *s;
    lab_node *node;
    binding b;

    for (s = sites; s; s = s->next) {
        for (node = s->started ? first_binding(s) : NULL; node; node = node->next) {
            int rank;
            if (!read_binding(node, &b) || b.port != port || (b.address && b.address != address)
                || (*b.host && _wcsicmp(b.host, host)))
                continue;
            rank = (*b.host ? 2 : 0) + (b.address ? 1 : 0);
            if (rank > best) {
                best = rank;
                found = s;
            }
        }
    }
    return found;
}

/* ---- workers --------------------------------------------------------------------------------------------------- */

/* Is `path` the same as, or below, `top` ("/a/b" below "/a")? */
static BOOL below(const wchar_t *path, const wchar_t *top)
{
    size_t length = wcslen(top);

    while (length && top[length - 1] == L'/')
        length--;
    return !_wcsnicmp(path, top, length) && (!path[length] || path[length] == L'/');
}

static lab_node *find_application(const site *s, const wchar_t *path)
{
    lab_node *node, *best = NULL;
    size_t longest = 0;

    for (node = s->node->child; node; node = node->next) {
        const wchar_t *own = lab_get(node, L"path", L"");
        if (wcscmp(node->name, L"application") || !below(path, own) || (best && wcslen(own) < longest))
            continue;
        best = node;
        longest = wcslen(own);
    }
    return best;
}

static const wchar_t *pool_of(const site *s, const lab_node *application)
{
    const wchar_t *common = lab_get(lab_child(lab_app_host(config, L"sites"), L"applicationDefaults"), L"applicationPool",
                                    L"DefaultAppPool");
    return lab_get(application, L"applicationPool",
                   lab_get(lab_child(s->node, L"applicationDefaults"), L"applicationPool", common));
}

/* FALSE: WAS does not answer. *stamp 0: the pool does not run. */
static BOOL pool_state(const wchar_t *name, unsigned long long *stamp)
{
    char *reply, *line, *next, *fields[3] = {"", "", ""}, *narrow = lab_utf8(name);

    *stamp = 0;
    if (!lab_ask(LAB_WAS_PIPE, "pools", &reply)) {
        free(narrow);
        return FALSE;
    }
    for (line = reply; *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        else
            next = line + strlen(line);
        if (split_fields(line, fields, 3) == 3 && !_stricmp(fields[0], narrow) && !strcmp(fields[1], "Started"))
            *stamp = strtoull(fields[2], NULL, 10);
    }
    free(reply);
    free(narrow);
    return TRUE;
}

static worker *get_worker(const wchar_t *pool, unsigned long long stamp)
{
    static int number;
    wchar_t path[MAX_PATH * 2];
    worker **link, *w;
    lab_fault fault;
    DWORD error;

    for (link = &workers; *link && _wcsicmp((*link)->pool, pool); link = &(*link)->next)
        ;
    if (*link && (*link)->stamp == stamp)
        return *link;
    if (*link) { /* the pool was started anew */
        w = *link;
        *link = w->next;
        while (w->outcomes) {
            outcome *o = w->outcomes;
            w->outcomes = o->next;
            free(o);
        }
        lab_xml_free(w->copy);
        free(w->pool);
        free(w);
    }
    swprintf(path, MAX_PATH * 2, LAB_POOL_FOLDER L"\\%ls\\%ls.config", pool, pool);
    w = lab_alloc(sizeof *w);
    w->copy = lab_config_load(path, &error);
    if (!w->copy || w->copy->error) {
        lab_event(LAB_WORKER_SOURCE, 2297, L"Error", w->copy ? 0x8007000D : lab_hresult(error),
                  L"The worker process for application pool '%ls' encountered an error '%ls\n' trying to read global module "
                  L"configuration data from file '\\\\?\\%ls', line number '%d'. Worker process startup aborted.",
                  pool, w->copy ? L"Configuration file is not well-formed XML" : L"Cannot read configuration file", path,
                  w->copy ? w->copy->error_line : 0);
        lab_xml_free(w->copy);
        free(w);
        return NULL;
    }
    if (!number)
        number = (int)(GetCurrentProcessId() * 4 + 2000);
    w->number = number += 4;
    w->pool = lab_wcsdup(pool);
    w->stamp = stamp;
    if (lab_fault_on(&fault, L"fail-worker") || lab_fault_on(&fault, L"fail-worker-%ls", pool))
        w->forced = fault.code ? fault.code : 0x80090005;
    w->next = workers;
    workers = w;
    return w;
}

/* Does a request for this path of this application read the element? */
static BOOL applies(const lab_node *node, const wchar_t *site_name, const lab_node *application, const wchar_t *path)
{
    const lab_node *n;
    wchar_t *full;
    BOOL yes = TRUE;

    for (n = node; n; n = n->parent) {
        if (!wcscmp(n->name, L"applicationPools") || !wcscmp(n->name, L"configProtectedData")
            || !wcscmp(n->name, L"ftpServer") || !wcscmp(n->name, L"system.ftpServer"))
            return FALSE;
        if (!wcscmp(n->name, L"site") && n->parent && !wcscmp(n->parent->name, L"sites")
            && _wcsicmp(lab_get(n, L"name", L""), site_name))
            return FALSE;
        if (!wcscmp(n->name, L"application") && n->parent && !wcscmp(n->parent->name, L"site")
            && _wcsicmp(lab_get(n, L"path", L""), lab_get(application, L"path", L"/")))
            return FALSE;
        if (!wcscmp(n->name, L"location")) {
            const wchar_t *top = lab_get(n, L"path", L"");
            full = lab_format(L"%ls%ls", site_name, path);
            yes = !*top || !wcscmp(top, L".") || below(full, top);
            free(full);
            if (!yes)
                return FALSE;
        }
    }
    return TRUE;
}

static DWORD open_value(const lab_document *document, const lab_node *node, const lab_attribute *attribute)
{
    const wchar_t *container = lab_container_of(document, attribute->value), *user = lab_get(node, L"userName", L"");
    wchar_t *text = NULL;
    DWORD error = 0;

    if (container && _wcsnicmp(container, L"iisCng", 6))
        error = lab_container_access(container, L"S-1-5-32-568");
    else if (container && !_wcsicmp(container, L"iisCngWasKey"))
        error = 0x80090016; /* only SYSTEM and Administrators */
    if (!error)
        error = lab_decrypt(document, attribute->value, &text);
    if (!error && (!lab_plausible(text) || (*user && lab_logon(user, text))))
        error = 0x8007052E;
    if (text) {
        SecureZeroMemory(text, wcslen(text) * sizeof(wchar_t));
        free(text);
    }
    return error;
}

static void failed_value(text_buffer *body, const worker *w, const wchar_t *attribute, int line, DWORD error)
{
    wchar_t *message = error == 0x8007052E ? lab_format(L"Cannot log on with the user name and password of the configuration")
                                           : lab_format(L"Failed to decrypt attribute '%ls'", attribute);
    wchar_t *file = lab_format(L"\\\\?\\" LAB_POOL_FOLDER L"\\%ls\\%ls.config", w->pool, w->pool);
    char *narrow_message = lab_utf8(message), *narrow_file = lab_utf8(file);

    lab_event(LAB_WORKER_SOURCE, 2307, L"Error", error,
              L"The worker process for application pool '%ls' encountered an error '%ls\n' trying to read configuration data "
              L"from file '%ls', line number '%d'. The data field contains the error code.",
              w->pool, message, file, line);
    text_add(body,
             "HTTP Error 500.19 - Internal Server Error\r\n"
             "The requested page cannot be accessed because the related configuration data for the page is invalid.\r\n"
             "Error Code: 0x%08lx\r\nConfig Error: %s\r\nConfig File: %s\r\nLine: %d\r\n",
             error, narrow_message, narrow_file, line);
    free(message);
    free(file);
    free(narrow_message);
    free(narrow_file);
}

/* 0 and a few lines about what was opened, or the error page. */
static DWORD read_values(worker *w, const site *s, const lab_node *application, const wchar_t *path, text_buffer *body)
{
    lab_node *node;
    lab_attribute *a;

    if (w->forced) {
        failed_value(body, w, L"password", 1, w->forced);
        return w->forced;
    }
    for (node = w->copy->root; node; node = lab_next_node(w->copy->root, node)) {
        for (a = node->attributes; a; a = a->next) {
            outcome *o;
            wchar_t *about;
            char *narrow;
            if (!lab_is_protected(a->value) || !applies(node, s->name, application, path))
                continue;
            for (o = w->outcomes; o && o->at != a->start; o = o->next)
                ;
            if (!o) {
                o = lab_alloc(sizeof *o);
                o->at = a->start;
                o->error = open_value(w->copy, node, a);
                o->next = w->outcomes;
                w->outcomes = o;
            }
            if (o->error) {
                body->used = 0;
                failed_value(body, w, a->name, a->line, o->error);
                return o->error;
            }
            about = lab_format(L"%ls %ls@%ls user '%ls' decrypted", node->name, lab_get(node, L"path", L""), a->name,
                               lab_get(node, L"userName", L""));
            narrow = lab_utf8(about);
            text_add(body, "%s\r\n", narrow);
            free(about);
            free(narrow);
        }
    }
    return 0;
}

/* ---- HTTP ------------------------------------------------------------------------------------------------------ */

static void reply(SOCKET socket, int code, const char *reason, const char *server, const char *body, BOOL head)
{
    text_buffer out = {0};
    char rest[512];
    size_t sent = 0;
    int count;

    text_add(&out,
             "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nServer: %s\r\nContent-Length: %u\r\n"
             "Connection: close\r\n\r\n%s",
             code, reason, server, (unsigned)strlen(body), head ? "" : body);
    while (sent < out.used) {
        count = send(socket, out.text + sent, (int)(out.used - sent), 0);
        if (count <= 0)
            break;
        sent += (size_t)count;
    }
    free(out.text);
    shutdown(socket, SD_SEND);
    while (recv(socket, rest, sizeof rest, 0) > 0)
        ;
}

/* The path of the request line, decoded. */
static wchar_t *request_path(const char *target)
{
    char *out = lab_alloc(strlen(target) + 2), *at = out;
    wchar_t *wide;

    if (!_strnicmp(target, "http://", 7)) {
        target = strchr(target + 7, '/');
        if (!target)
            target = "/";
    }
    for (; *target && *target != '?' && *target != '#'; target++) {
        unsigned code;
        if (*target == '%' && sscanf(target + 1, "%2x", &code) == 1 && code) {
            *at++ = (char)code;
            target += target[1] && target[2] ? 2 : 0;
        } else {
            *at++ = *target;
        }
    }
    if (at == out)
        *at++ = '/';
    wide = lab_wide(out);
    free(out);
    return wide;
}

static void serve(SOCKET socket, const char *target, const char *host_header, BOOL head)
{
    struct sockaddr_in own = {0};
    int size = sizeof own, code = 200;
    wchar_t *path = request_path(target), *host = lab_wide(host_header), *colon;
    const char *reason = "OK", *server = "Microsoft-IIS/10.0";
    unsigned long long stamp;
    text_buffer body = {0};
    lab_node *application;
    lab_fault fault;
    worker *w;
    site *s;

    getsockname(socket, (struct sockaddr *)&own, &size);
    colon = wcsrchr(host, L':');
    if (colon)
        *colon = 0;
    text_add(&body, "%s", "");
    EnterCriticalSection(&lock);
    s = route(own.sin_addr.s_addr, ntohs(own.sin_port), host);
    application = s ? find_application(s, path) : NULL;
    if (!application) {
        code = 404;
        reason = "Not Found";
        server = "Microsoft-HTTPAPI/2.0";
        text_add(&body, "Not Found\r\nHTTP Error 404. The requested resource is not found.\r\n");
    } else {
        const wchar_t *pool = pool_of(s, application);
        w = pool_state(pool, &stamp) && stamp ? get_worker(pool, stamp) : NULL;
        if (!w) {
            code = 503;
            reason = "Service Unavailable";
            server = "Microsoft-HTTPAPI/2.0";
            text_add(&body, "Service Unavailable\r\nHTTP Error 503. The service is unavailable.\r\n");
        } else {
            char *site_name = lab_utf8(s->name), *pool_name = lab_utf8(pool);
            text_add(&body, "site: %s\r\npool: %s\r\nworker: %d\r\n", site_name, pool_name, w->number);
            free(site_name);
            free(pool_name);
            if (read_values(w, s, application, path, &body)) {
                code = 500;
                reason = "Internal Server Error";
            } else if (lab_fault_on(&fault, L"http-status")) {
                code = fault.code ? (int)fault.code : 500;
                reason = "Fault";
            }
        }
    }
    LeaveCriticalSection(&lock);
    reply(socket, code, reason, server, body.text, head);
    free(body.text);
    free(path);
    free(host);
}

static DWORD WINAPI connection(void *data)
{
    SOCKET socket = (SOCKET)(ULONG_PTR)data;
    char *request = lab_alloc(16385), *line, *target, *end, host[256] = "";
    DWORD patience = 5000;
    int used = 0, count;
    u_long blocking = 0;

    WSAEventSelect(socket, NULL, 0);
    ioctlsocket(socket, FIONBIO, &blocking);
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, (char *)&patience, sizeof patience);
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, (char *)&patience, sizeof patience);
    while (used < 16384 && !strstr(request, "\r\n\r\n")) {
        count = recv(socket, request + used, 16384 - used, 0);
        if (count <= 0)
            goto done;
        used += count;
        request[used] = 0;
    }
    for (line = strstr(request, "\r\n"); line && strncmp(line, "\r\n\r\n", 4); line = strstr(line + 2, "\r\n")) {
        if (!_strnicmp(line + 2, "host:", 5)) {
            const char *value = line + 7 + strspn(line + 7, " \t");
            size_t length = strcspn(value, " \t\r\n");
            if (length < sizeof host) {
                memcpy(host, value, length);
                host[length] = 0;
            }
        }
    }
    target = strchr(request, ' ');
    end = target ? strpbrk(target + 1, " \r\n") : NULL;
    if (!end) {
        reply(socket, 400, "Bad Request", "Microsoft-HTTPAPI/2.0", "Bad Request\r\nHTTP Error 400.\r\n", FALSE);
        goto done;
    }
    *end = 0;
    *target++ = 0;
    serve(socket, target, host, !strcmp(request, "HEAD"));
done:
    closesocket(socket);
    free(request);
    return 0;
}

/* ---- the service ----------------------------------------------------------------------------------------------- */

static char *answer(char *request)
{
    text_buffer out = {0};
    char *fields[2] = {"", ""};
    wchar_t *name;
    DWORD error = 0;
    worker *w;
    site *s;

    split_fields(request, fields, 2);
    name = lab_wide(fields[1]);
    text_add(&out, "%s", "");
    EnterCriticalSection(&lock);
    s = find_site(name);
    if (!strcmp(fields[0], "sites")) {
        for (s = sites; s; s = s->next) {
            char *narrow = lab_utf8(s->name);
            text_add(&out, "%ls\t%s\t%s\n", s->id, narrow, s->started ? "Started" : "Stopped");
            free(narrow);
        }
    } else if (!strcmp(fields[0], "workers")) {
        for (w = workers; w; w = w->next) {
            unsigned long long stamp;
            char *narrow = lab_utf8(w->pool);
            /* with the fault it has answered, and is gone since */
            if (pool_state(w->pool, &stamp) && stamp == w->stamp && !lab_fault_there(L"lose-worker-%ls", w->pool))
                text_add(&out, "%d\t%s\n", w->number, narrow);
            free(narrow);
        }
    } else {
        if (!s)
            error = 0x80070490;
        else if (!strcmp(fields[0], "start-site"))
            error = s->started ? 0x80070420 : collides(s) ? 0x800700B7 : 0;
        else if (!strcmp(fields[0], "stop-site"))
            error = s->started ? 0 : 0x80070426;
        else
            error = 0x80070032;
        if (!error) {
            s->started = !strcmp(fields[0], "start-site");
            s->by_hand = !s->started;
            rebuild_listeners();
            if (!s->by_hand && !s->started)
                error = 0x80070020; /* its address is in use */
        }
        text_add(&out, error ? "ERR %08lX" : "OK", error);
    }
    LeaveCriticalSection(&lock);
    free(name);
    return out.text;
}

/* Wine keeps dependencies but does not act on them: the service starts WAS itself, as the system would have done. */
static DWORD start_was(void)
{
    SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_CONNECT);
    SC_HANDLE service = manager ? OpenServiceW(manager, L"WAS", SERVICE_QUERY_STATUS | SERVICE_START) : NULL;
    SERVICE_STATUS other = {0};
    unsigned long long stamp;
    int i;

    /* Wine says RUNNING of a service whose process is gone: its pipe knows better. */
    if (service && QueryServiceStatus(service, &other)
        && (other.dwCurrentState == SERVICE_STOPPED
            || (other.dwCurrentState == SERVICE_RUNNING && !pool_state(L"", &stamp))))
        StartServiceW(service, 0, NULL);
    for (i = 0; service && i < 1200; i++) {
        if (!QueryServiceStatus(service, &other) || other.dwCurrentState == SERVICE_STOPPED
            || other.dwCurrentState == SERVICE_RUNNING)
            break;
        if (i % 10 == 0)
            service_progress();
        Sleep(100);
    }
    if (service)
        CloseServiceHandle(service);
    if (manager)
        CloseServiceHandle(manager);
    if (service && other.dwCurrentState == SERVICE_RUNNING)
        return 0;
    lab_event(LAB_SCM_SOURCE, 7001, L"Error", 0,
              L"The World Wide Web Publishing Service service depends on the Windows Process Activation Service service which "
              L"failed to start because of the following error: 0x%08lX",
              other.dwWin32ExitCode == ERROR_SERVICE_SPECIFIC_ERROR ? other.dwServiceSpecificExitCode
                                                                    : other.dwWin32ExitCode);
    return ERROR_SERVICE_DEPENDENCY_FAIL;
}

/* WAS cannot be stopped while W3SVC, which depends on it, runs. */
static void tell_was(const char *what)
{
    char *reply;
    if (lab_ask(LAB_WAS_PIPE, what, &reply))
        free(reply);
}

static DWORD web_start(void)
{
    WSADATA data;
    DWORD error = start_was();

    if (error)
        return error;
    InitializeCriticalSection(&lock);
    WSAStartup(MAKEWORD(2, 2), &data);
    arrived = WSACreateEvent();
    error = load();
    if (error)
        return error;
    if (!service_pipe(LAB_W3SVC_PIPE, answer))
        return lab_hresult(GetLastError());
    tell_was("hold");
    return 0;
}

static void accept_all(void)
{
    listener *l;
    SOCKET s;

    EnterCriticalSection(&lock);
    for (l = listeners; l; l = l->next) {
        while ((s = accept(l->socket, NULL, NULL)) != INVALID_SOCKET) {
            HANDLE thread = CreateThread(NULL, 0, connection, (void *)(ULONG_PTR)s, 0, NULL);
            if (thread)
                CloseHandle(thread);
            else
                closesocket(s);
        }
    }
    LeaveCriticalSection(&lock);
}

static DWORD web_run(HANDLE stop)
{
    HANDLE handles[2] = {stop, arrived};
    ULONGLONG next = GetTickCount64() + 1000;
    int silent = 0;

    for (;;) {
        DWORD result = WaitForMultipleObjects(2, handles, FALSE, 1000);
        if (result == WAIT_OBJECT_0)
            return 0;
        if (result == WAIT_OBJECT_0 + 1) {
            WSAResetEvent(arrived);
            accept_all();
        }
        if (GetTickCount64() >= next) {
            WIN32_FILE_ATTRIBUTE_DATA data;
            unsigned long long stamp;
            next = GetTickCount64() + 1000;
            /* On Windows both live in one process: when WAS goes without being stopped, W3SVC goes with it. */
            silent = pool_state(L"", &stamp) ? 0 : silent + 1;
            if (silent >= 3)
                return ERROR_PROCESS_ABORTED;
            if (GetFileAttributesExW(config_path, GetFileExInfoStandard, &data)
                && (data.nFileSizeLow != config_size || CompareFileTime(&data.ftLastWriteTime, &config_time))) {
                Sleep(100);
                EnterCriticalSection(&lock);
                load();
                LeaveCriticalSection(&lock);
            }
        }
    }
}

static void web_stop(void)
{
    EnterCriticalSection(&lock);
    while (listeners)
        close_listener(&listeners);
    LeaveCriticalSection(&lock);
    tell_was("release");
}

const lab_service w3svc_service = {
    L"W3SVC", L"World Wide Web Publishing Service",
    L"Provides Web connectivity and administration through the Internet Information Services Manager.",
    L"WAS", SERVICE_AUTO_START, web_start, web_run, web_stop};
