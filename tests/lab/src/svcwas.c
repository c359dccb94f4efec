/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * WAS: reads the configuration, opens the WAS-only keys and the passwords of application pools, knows which pools run and
 * writes the copies of the configuration that workers read.
 *
 * Requests on \\.\pipe\lab-was (fields separated by tabs, text in UTF-8):
 *   pools                    -> one line per pool: name, Started|Stopped, stamp (changes with every start)
 *   start-pool NAME          -> OK, or ERR and the HRESULT in hexadecimal (80070420 runs already, 80070490 no such pool)
 *   stop-pool NAME           -> OK, or ERR (80070426 does not run)
 *   recycle-pool NAME        -> as start-pool: a new stamp for a pool that runs
 *   hold, release            -> OK; W3SVC, which depends on WAS, runs or has stopped: WAS cannot be stopped meanwhile
 * A pool whose identity is invalid is Stopped. Nothing of this outlives the process.
 */
#include "iissvc.h"

typedef struct pool {
    wchar_t *name;
    BOOL started, by_hand; /* by_hand: somebody stopped it; a change of the file does not start it again */
    unsigned long long stamp;
    struct pool *next;
} pool;

static CRITICAL_SECTION lock;
static pool *pools;
static lab_document *config;
static wchar_t config_path[MAX_PATH];
static FILETIME config_time;
static DWORD config_size;
static BOOL dependent; /* W3SVC runs */

static unsigned long long new_stamp(void)
{
    static unsigned long long last;
    FILETIME now;
    unsigned long long stamp;

    GetSystemTimeAsFileTime(&now);
    stamp = ((unsigned long long)now.dwHighDateTime << 32) | now.dwLowDateTime;
    last = stamp > last ? stamp : last + 1;
    return last;
}

static pool *find_pool(pool *list, const wchar_t *name)
{
    while (list && _wcsicmp(list->name, name))
        list = list->next;
    return list;
}

static lab_node *pool_node(const wchar_t *name)
{
    lab_node *node = lab_app_host(config, L"applicationPools");

    for (node = node ? node->child : NULL; node; node = node->next)
        if (!wcscmp(node->name, L"add") && !_wcsicmp(lab_get(node, L"name", L""), name))
            return node;
    return NULL;
}

/* The worker's copy: the configuration without the pool identities' passwords, in the original's encoding. */
static DWORD write_copy(const wchar_t *name)
{
    wchar_t folder[MAX_PATH], path[MAX_PATH * 2];
    lab_node *section = lab_app_host(config, L"applicationPools"), *node;
    wchar_t *text = lab_alloc((config->length + 1) * sizeof(wchar_t));
    size_t used = 0, from = 0;
    DWORD size, error;
    BYTE *bytes;

    for (node = section; node; node = lab_next_node(section, node)) {
        lab_attribute *a;
        for (a = node->attributes; a; a = a->next) {
            if (!lab_is_protected(a->value))
                continue;
            memcpy(text + used, config->text + from, (a->start - from) * sizeof(wchar_t));
            used += a->start - from;
            from = a->end;
        }
    }
    memcpy(text + used, config->text + from, (config->length - from) * sizeof(wchar_t));
    used += config->length - from;
    bytes = lab_xml_encode(config, text, used, &size);
    swprintf(folder, MAX_PATH, LAB_POOL_FOLDER L"\\%ls", name);
    swprintf(path, MAX_PATH * 2, L"%ls\\%ls.config", folder, name);
    lab_make_folders(folder);
    error = lab_write_file(path, bytes, size);
    free(bytes);
    free(text);
    if (error)
        lab_event(LAB_WAS_SOURCE, 5189, L"Error", lab_hresult(error),
                  L"The Windows Process Activation Service failed to generate an application pool config file for "
                  L"application pool '%ls'. The error type is '0'. To resolve this issue, please ensure that the "
                  L"ApplicationHost.config file is correct and recommit the last configuration changes made. The data "
                  L"field contains the error number.",
                  name);
    return error;
}

/* 0: the pool can run under its identity. */
static DWORD check_identity(const wchar_t *name)
{
    lab_node *all = lab_app_host(config, L"applicationPools"), *node = pool_node(name);
    const wchar_t *user, *value;
    wchar_t *password = NULL;
    DWORD error = 0;
    lab_fault fault;

    if (lab_fault_on(&fault, L"bad-identity-%ls", name)) {
        error = fault.code ? fault.code : 0x8007052E;
    } else if (!_wcsicmp(lab_pool_get(all, node, L"processModel", L"identityType", L"ApplicationPoolIdentity"),
                         L"SpecificUser")) {
        user = lab_pool_get(all, node, L"processModel", L"userName", L"");
        value = lab_pool_get(all, node, L"processModel", L"password", L"");
        if (!*user)
            error = 0x80070057;
        else if (lab_is_protected(value))
            error = lab_decrypt(config, value, &password);
        else
            password = lab_wcsdup(wcsncmp(value, L"[enc:", 5) ? value : L"");
        /* rubbish is no password of anybody: the logon fails */
        if (!error)
            error = lab_plausible(password) ? lab_logon(user, password) : 0x8007052E;
    }
    if (password) {
        SecureZeroMemory(password, wcslen(password) * sizeof(wchar_t));
        free(password);
    }
    if (!error)
        return 0;
    lab_event(LAB_WAS_SOURCE, 5021, L"Warning", error,
              L"The identity of application pool %ls is invalid. The user name or password that is specified for the "
              L"identity may be incorrect, or the user may not have batch logon rights. If the identity is not corrected, "
              L"the application pool will be disabled when the application pool receives its first request.  If batch logon "
              L"rights are causing the problem, the identity in the IIS configuration store must be changed after rights "
              L"have been granted before Windows Process Activation Service (WAS) can retry the logon. If the identity "
              L"remains invalid after the first request for the application pool is processed, the application pool will be "
              L"disabled. The data field contains the error number.",
              name);
    lab_event(LAB_WAS_SOURCE, 5057, L"Warning", error,
              L"Application pool %ls has been disabled. Windows Process Activation Service (WAS) did not create a worker "
              L"process to serve the application pool because the application pool identity is invalid.",
              name);
    return error;
}

static DWORD start_pool(pool *p)
{
    DWORD error = check_identity(p->name);

    if (!error) {
        error = write_copy(p->name);
        error = error ? lab_hresult(error) : 0;
    }
    p->started = !error;
    p->by_hand = FALSE;
    p->stamp = new_stamp();
    return error;
}

static void read_error(const wchar_t *path, int line, const wchar_t *message, DWORD error)
{
    lab_event(LAB_WAS_SOURCE, 5172, L"Error", error,
              L"The Windows Process Activation Service encountered an error trying to read configuration data from file "
              L"'\\\\?\\%ls', line number '%d'. The error message is: '%ls'. The data field contains the error number.",
              path, line, message);
}

/* Loads the file in force. 0 and the document, or the HRESULT (5172 is logged). */
static DWORD load(lab_document **document, wchar_t *path)
{
    WIN32_FILE_ATTRIBUTE_DATA data;
    DWORD error = lab_config_path(path, MAX_PATH);

    *document = NULL;
    if (error) {
        wchar_t folder[MAX_PATH], *redirection;
        lab_config_folder(folder, MAX_PATH);
        redirection = lab_format(L"%ls\\redirection.config", folder);
        read_error(redirection, 0, L"Cannot read configuration file\n", lab_hresult(error));
        free(redirection);
        return lab_hresult(error);
    }
    if (GetFileAttributesExW(path, GetFileExInfoStandard, &data)) {
        config_time = data.ftLastWriteTime;
        config_size = data.nFileSizeLow;
    }
    *document = lab_config_load(path, &error);
    if (!*document) {
        read_error(path, 0, error == ERROR_ACCESS_DENIED
                                ? L"Cannot read configuration file due to insufficient permissions\n"
                                : L"Cannot read configuration file\n",
                   lab_hresult(error));
        return lab_hresult(error);
    }
    if ((*document)->error) {
        wchar_t *message = lab_format(L"Configuration file is not well-formed XML (%ls)\n", (*document)->error);
        read_error(path, (*document)->error_line, message, 0x8007000D);
        free(message);
        lab_xml_free(*document);
        *document = NULL;
        return 0x8007000D;
    }
    return 0;
}

/* Takes the pools of the new configuration over; those that somebody stopped stay so. */
static void take_over(lab_document *document)
{
    pool *old = pools, *p;
    lab_node *section, *node;

    lab_xml_free(config);
    config = document;
    pools = NULL;
    section = lab_app_host(config, L"applicationPools");
    for (node = section ? section->child : NULL; node; node = node->next) {
        pool *before, **end;
        if (wcscmp(node->name, L"add") || !*lab_get(node, L"name", L""))
            continue;
        p = lab_alloc(sizeof *p);
        p->name = lab_wcsdup(lab_get(node, L"name", L""));
        for (end = &pools; *end; end = &(*end)->next)
            ;
        *end = p;
        before = find_pool(old, p->name);
        p->by_hand = before && before->by_hand;
        p->stamp = new_stamp();
        if (!p->by_hand && lab_true(lab_pool_get(section, node, NULL, L"autoStart", L"true"))) {
            start_pool(p);
            service_progress();
        }
    }
    while (old) {
        p = old->next;
        free(old->name);
        free(old);
        old = p;
    }
}

/* Every container that a WAS-only provider of CryptoAPI names must open, or WAS does not start. */
static DWORD open_was_keys(const lab_document *document)
{
    lab_node *node = lab_path(document->root, L"configProtectedData/providers");
    HCRYPTPROV provider;
    DWORD error;

    for (node = node ? node->child : NULL; node; node = node->next) {
        const wchar_t *container = lab_get(node, L"keyContainerName", L"");
        if (wcscmp(node->name, L"add") || wcsncmp(lab_get(node, L"name", L""), L"IISWASOnly", 10)
            || wcsstr(lab_get(node, L"type", L""), L"CngProtected"))
            continue;
        error = lab_container_open(container, &provider);
        if (error) {
            lab_event(LAB_WAS_SOURCE, 5005, L"Error", error,
                      L"Windows Process Activation Service (WAS) is stopping because it encountered an error. The data "
                      L"field contains the error number. (key container %ls)",
                      container);
            return error;
        }
        CryptReleaseContext(provider, 0);
    }
    return 0;
}

static char *answer(char *request)
{
    text_buffer out = {0};
    char *fields[2] = {"", ""};
    wchar_t *name;
    DWORD error = 0;
    pool *p;

    split_fields(request, fields, 2);
    name = lab_wide(fields[1]);
    EnterCriticalSection(&lock);
    p = find_pool(pools, name);
    if (!strcmp(fields[0], "pools")) {
        text_add(&out, "%s", "");
        for (p = pools; p; p = p->next) {
            char *narrow = lab_utf8(p->name);
            text_add(&out, "%s\t%s\t%llu\n", narrow, p->started ? "Started" : "Stopped", p->stamp);
            free(narrow);
        }
    } else if (!strcmp(fields[0], "hold") || !strcmp(fields[0], "release")) {
        service_hold(dependent = !strcmp(fields[0], "hold"));
        text_add(&out, "OK");
    } else {
        if (!p)
            error = 0x80070490;
        else if (!strcmp(fields[0], "start-pool"))
            error = p->started ? 0x80070420 : start_pool(p);
        else if (!p->started)
            error = 0x80070426;
        else if (!strcmp(fields[0], "recycle-pool"))
            error = start_pool(p);
        else if (!strcmp(fields[0], "stop-pool"))
            p->started = FALSE, p->by_hand = TRUE;
        else
            error = 0x80070032;
        text_add(&out, error ? "ERR %08lX" : "OK", error);
    }
    LeaveCriticalSection(&lock);
    free(name);
    return out.text;
}

static DWORD was_start(void)
{
    lab_document *document;
    wchar_t *left_over;
    DWORD error;

    InitializeCriticalSection(&lock);
    error = load(&document, config_path);
    if (!error) {
        left_over = lab_format(L"%ls.tmp", config_path);
        if (lab_exists(left_over)) {
            lab_event(LAB_WAS_SOURCE, 5215, L"Error", 0x80070050,
                      L"The Windows Process Activation Service (WAS) failed to execute initialization for offline setup. The "
                      L"data field contains the error number.");
            error = 0x80070050; /* the file exists */
        }
        free(left_over);
    }
    if (error) {
        lab_event(LAB_WAS_SOURCE, 5005, L"Error", error,
                  L"Windows Process Activation Service (WAS) is stopping because it encountered an error. The data field "
                  L"contains the error number.");
        return error;
    }
    error = open_was_keys(document);
    if (error)
        return error;
    take_over(document);
    if (!service_pipe(LAB_WAS_PIPE, answer))
        return lab_hresult(GetLastError());
    return 0;
}

/* W3SVC says itself when it stops; this is for one that crashed. */
static BOOL w3svc_runs(void)
{
    SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_CONNECT);
    SC_HANDLE service = manager ? OpenServiceW(manager, L"W3SVC", SERVICE_QUERY_STATUS) : NULL;
    SERVICE_STATUS other = {0};
    BOOL running = service && QueryServiceStatus(service, &other) && other.dwCurrentState != SERVICE_STOPPED;

    if (service)
        CloseServiceHandle(service);
    if (manager)
        CloseServiceHandle(manager);
    return running;
}

static DWORD was_run(HANDLE stop)
{
    while (WaitForSingleObject(stop, 1000) == WAIT_TIMEOUT) {
        WIN32_FILE_ATTRIBUTE_DATA data;
        wchar_t path[MAX_PATH];
        lab_document *document;

        if (dependent && !w3svc_runs())
            service_hold(dependent = FALSE);
        if (lab_config_path(path, MAX_PATH) || !GetFileAttributesExW(path, GetFileExInfoStandard, &data))
            continue; /* the cached configuration stays in use */
        if (!_wcsicmp(path, config_path) && data.nFileSizeLow == config_size
            && !CompareFileTime(&data.ftLastWriteTime, &config_time))
            continue;
        Sleep(100); /* whoever writes may not be ready */
        if (load(&document, path))
            continue;
        EnterCriticalSection(&lock);
        wcscpy(config_path, path);
        take_over(document);
        LeaveCriticalSection(&lock);
    }
    return 0;
}

const lab_service was_service = {
    L"WAS", L"Windows Process Activation Service",
    L"Provides process activation, resource management and health management services for message-activated applications.",
    NULL, SERVICE_DEMAND_START, was_start, was_run, NULL};
