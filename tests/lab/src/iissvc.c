/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * iissvc: the Windows services of a simulated web server in one program.
 *
 *   iissvc NAME            run as this service (the service control manager calls it so): WAS, W3SVC, AppHostSvc, WMSVC,
 *                          FTPSVC, LabKeyFiles
 *   iissvc install [auto|demand]   register all six with the names, start types and dependency that Windows uses; "demand"
 *                          starts nothing but LabKeyFiles with the system
 *   iissvc uninstall       remove them
 *   iissvc unelevated COMMANDLINE...   run a program with a token that is not elevated and has no Administrators group
 *
 * `install` does what these lines do (the path is that of the program itself):
 *
 *   sc create LabKeyFiles binPath= "C:\lab\iissvc.exe LabKeyFiles" start= auto DisplayName= "Lab Key Files"
 *   sc create WAS binPath= "C:\lab\iissvc.exe WAS" start= demand DisplayName= "Windows Process Activation Service"
 *   sc create W3SVC binPath= "C:\lab\iissvc.exe W3SVC" start= auto depend= WAS
 *      DisplayName= "World Wide Web Publishing Service"
 *   sc create AppHostSvc binPath= "C:\lab\iissvc.exe AppHostSvc" start= auto
 *      DisplayName= "Application Host Helper Service"
 *   sc create FTPSVC binPath= "C:\lab\iissvc.exe FTPSVC" start= auto DisplayName= "Microsoft FTP Service"
 *   sc create WMSVC binPath= "C:\lab\iissvc.exe WMSVC" start= demand DisplayName= "Web Management Service"
 *
 * Faults are files in C:\lab\faults, looked at when the moment comes; their content may say ms=N, code=N, times=N:
 *
 *   refuse-start-NAME      the start fails (code=N: Win32 error, or HRESULT as service-specific error; default 1053)
 *   hang-start-NAME        stays in START_PENDING while the file is there
 *   start-delay-NAME       START_PENDING for N ms (default 5000)
 *   crash-after-start-NAME the process ends N ms after RUNNING (default 300); state STOPPED, exit code 1067
 *   refuse-stop-NAME       the service accepts no stop while the file is there (the caller gets error 1052)
 *   hang-stop-NAME         stays in STOP_PENDING while the file is there
 *   stop-delay-NAME        STOP_PENDING for N ms (default 5000)
 *   bad-identity-POOL      WAS finds the pool's identity invalid (code=HRESULT, default 0x8007052E)
 *   fail-worker, fail-worker-POOL   a new worker finds a value that it cannot decrypt (code=HRESULT, default 0x80090005)
 *   lose-worker-POOL       the worker of the pool is gone as soon as it has answered, while the file is there
 *   http-status            every request that would succeed gets status N instead (code=N, default 500)
 */
#include "iissvc.h"

#include <ctype.h>

static const lab_service *const services[] = {&key_files_service, &was_service,        &w3svc_service,
                                              &helper_service,    &ftp_service,        &management_service};
#define SERVICE_COUNT (sizeof services / sizeof *services)

static const lab_service *current;
static SERVICE_STATUS_HANDLE status_handle;
static SERVICE_STATUS status;
static CRITICAL_SECTION status_lock;
static HANDLE stop_event;
static volatile BOOL held, refusing;

static const lab_service *find_service(const wchar_t *name)
{
    size_t i;

    for (i = 0; i < SERVICE_COUNT; i++)
        if (!_wcsicmp(services[i]->name, name))
            return services[i];
    return NULL;
}

static void set_status(DWORD state, DWORD error)
{
    EnterCriticalSection(&status_lock);
    status.dwServiceType = SERVICE_WIN32_OWN_PROCESS;
    status.dwControlsAccepted = state != SERVICE_RUNNING ? 0 : SERVICE_ACCEPT_SHUTDOWN
                                | (held || refusing ? 0 : SERVICE_ACCEPT_STOP);
    status.dwWin32ExitCode = 0;
    status.dwServiceSpecificExitCode = 0;
    if (error && (error & 0xFFFF0000) == 0x80070000) {
        status.dwWin32ExitCode = error & 0xFFFF;
    } else if (error & 0x80000000) {
        status.dwWin32ExitCode = ERROR_SERVICE_SPECIFIC_ERROR;
        status.dwServiceSpecificExitCode = error;
    } else {
        status.dwWin32ExitCode = error;
    }
    if (state == SERVICE_START_PENDING || state == SERVICE_STOP_PENDING) {
        status.dwCheckPoint = state == status.dwCurrentState ? status.dwCheckPoint + 1 : 1;
        status.dwWaitHint = 3000;
    } else {
        status.dwCheckPoint = status.dwWaitHint = 0;
    }
    status.dwCurrentState = state;
    SetServiceStatus(status_handle, &status);
    LeaveCriticalSection(&status_lock);
}

void service_progress(void)
{
    if (status.dwCurrentState == SERVICE_START_PENDING || status.dwCurrentState == SERVICE_STOP_PENDING)
        set_status(status.dwCurrentState, 0);
}

static void linger(DWORD ms, const wchar_t *while_fault)
{
    DWORD waited = 0;

    for (;;) {
        if (while_fault ? !lab_fault_there(L"%ls-%ls", while_fault, current->name) : waited >= ms)
            return;
        Sleep(!while_fault && ms - waited < 250 ? ms - waited : 250);
        waited += 250;
        if (waited % 1000 == 0)
            service_progress();
    }
}

/*
 * A handler cannot refuse a stop on Wine: its answer is lost, and the service can never be stopped afterwards. So a service
 * that refuses says beforehand that it accepts none; the caller gets 1052 (on Windows 1051 for running dependents).
 */
void service_hold(BOOL hold)
{
    held = hold;
    if (status.dwCurrentState == SERVICE_RUNNING)
        set_status(SERVICE_RUNNING, 0);
}

static DWORD WINAPI watch_faults(void *unused)
{
    HANDLE change = FindFirstChangeNotificationW(LAB_FAULTS, FALSE, FILE_NOTIFY_CHANGE_FILE_NAME);
    BOOL there;

    (void)unused;
    for (;;) {
        there = lab_fault_there(L"refuse-stop-%ls", current->name);
        if (there != refusing) {
            refusing = there;
            service_hold(held);
        }
        if (change == INVALID_HANDLE_VALUE)
            Sleep(500);
        else if (WaitForSingleObject(change, INFINITE) == WAIT_OBJECT_0)
            FindNextChangeNotification(change);
    }
    return 0;
}

static DWORD WINAPI control(DWORD code, DWORD type, void *data, void *context)
{
    (void)type, (void)data, (void)context;
    if (code == SERVICE_CONTROL_INTERROGATE)
        return NO_ERROR;
    if (code != SERVICE_CONTROL_STOP && code != SERVICE_CONTROL_SHUTDOWN)
        return ERROR_CALL_NOT_IMPLEMENTED;
    set_status(SERVICE_STOP_PENDING, 0);
    SetEvent(stop_event);
    return NO_ERROR;
}

/* Wine takes a service whose process is gone for a running one, so the last thing that it does is to say it. */
static LONG WINAPI crash(EXCEPTION_POINTERS *unused)
{
    (void)unused;
    lab_event(LAB_SCM_SOURCE, 7034, L"Error", 0, L"The %ls service terminated unexpectedly.", current->display);
    set_status(SERVICE_STOPPED, ERROR_PROCESS_ABORTED);
    TerminateProcess(GetCurrentProcess(), 1);
    return EXCEPTION_EXECUTE_HANDLER;
}

static DWORD WINAPI crash_thread(void *ms)
{
    Sleep((DWORD)(ULONG_PTR)ms);
    crash(NULL);
    return 0;
}

static void report_failure(DWORD error)
{
    wchar_t *text = NULL;

    FormatMessageW(FORMAT_MESSAGE_ALLOCATE_BUFFER | FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL,
                   (error & 0xFFFF0000) == 0x80070000 ? error & 0xFFFF : error, 0, (wchar_t *)&text, 0, NULL);
    if (text)
        text[wcscspn(text, L"\r\n")] = 0;
    if ((error & 0xFFFF0000) == 0x80070000 || !(error & 0x80000000))
        lab_event(LAB_SCM_SOURCE, 7023, L"Error", 0, L"The %ls service terminated with the following error: %ls",
                  current->display, text ? text : L"unknown error");
    else
        lab_event(LAB_SCM_SOURCE, 7024, L"Error", 0,
                  L"The %ls service terminated with the following service-specific error: %lu (0x%08lX).",
                  current->display, error, error);
    LocalFree(text);
}

static void WINAPI service_main(DWORD count, wchar_t **words)
{
    lab_fault fault;
    DWORD error = 0;

    (void)count, (void)words;
    stop_event = CreateEventW(NULL, TRUE, FALSE, NULL);
    status_handle = RegisterServiceCtrlHandlerExW(current->name, control, NULL);
    if (!status_handle)
        return;
    set_status(SERVICE_START_PENDING, 0);
    lab_make_folders(LAB_FAULTS);
    refusing = lab_fault_there(L"refuse-stop-%ls", current->name);
    if (lab_fault_on(&fault, L"start-delay-%ls", current->name))
        linger(fault.ms ? fault.ms : 5000, NULL);
    linger(0, L"hang-start");
    if (lab_fault_on(&fault, L"refuse-start-%ls", current->name))
        error = fault.code ? fault.code : ERROR_SERVICE_REQUEST_TIMEOUT;
    if (!error)
        error = current->start ? current->start() : 0;
    if (error) {
        report_failure(error);
        set_status(SERVICE_STOPPED, error);
        return;
    }
    set_status(SERVICE_RUNNING, 0);
    CloseHandle(CreateThread(NULL, 0, watch_faults, NULL, 0, NULL));
    if (lab_fault_on(&fault, L"crash-after-start-%ls", current->name))
        CloseHandle(CreateThread(NULL, 0, crash_thread, (void *)(ULONG_PTR)(fault.ms ? fault.ms : 300), 0, NULL));
    if (current->run)
        error = current->run(stop_event);
    else
        WaitForSingleObject(stop_event, INFINITE);
    if (!error) {
        set_status(SERVICE_STOP_PENDING, 0);
        if (lab_fault_on(&fault, L"stop-delay-%ls", current->name))
            linger(fault.ms ? fault.ms : 5000, NULL);
        linger(0, L"hang-stop");
    }
    if (current->stop)
        current->stop();
    if (error)
        report_failure(error);
    set_status(SERVICE_STOPPED, error);
}

/* ---- what services share --------------------------------------------------------------------------------------- */

int split_fields(char *line, char **fields, int most)
{
    int count = 0;

    while (line && count < most) {
        fields[count++] = line;
        line = strchr(line, '\t');
        if (line)
            *line++ = 0;
    }
    return count;
}

void text_add(text_buffer *buffer, const char *format, ...)
{
    va_list list;
    int count;

    va_start(list, format);
    count = vsnprintf(NULL, 0, format, list);
    va_end(list);
    if (buffer->used + (size_t)count + 1 > buffer->size) {
        buffer->size = (buffer->used + (size_t)count + 1) * 2;
        buffer->text = realloc(buffer->text, buffer->size);
        if (!buffer->text)
            ExitProcess(ERROR_NOT_ENOUGH_MEMORY);
    }
    va_start(list, format);
    vsnprintf(buffer->text + buffer->used, (size_t)count + 1, format, list);
    va_end(list);
    buffer->used += (size_t)count;
}

typedef struct {
    const wchar_t *name;
    HANDLE pipe;
    pipe_answer answer;
} pipe_server;

static HANDLE make_pipe(const wchar_t *name)
{
    return CreateNamedPipeW(name, PIPE_ACCESS_DUPLEX, PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_WAIT,
                            PIPE_UNLIMITED_INSTANCES, LAB_PIPE_SIZE, LAB_PIPE_SIZE, 0, NULL);
}

static DWORD WINAPI pipe_thread(void *data)
{
    pipe_server *server = data;
    char *request = lab_alloc(4096), *reply;
    DWORD size, length;

    for (;;) {
        if (!ConnectNamedPipe(server->pipe, NULL) && GetLastError() != ERROR_PIPE_CONNECTED) {
            Sleep(50);
            continue;
        }
        if (ReadFile(server->pipe, request, 4095, &size, NULL)) {
            request[size] = 0;
            reply = server->answer(request);
            length = (DWORD)strlen(reply);
            if (length > LAB_PIPE_SIZE)
                length = LAB_PIPE_SIZE;
            WriteFile(server->pipe, reply, length, &size, NULL);
            free(reply);
            FlushFileBuffers(server->pipe);
        }
        DisconnectNamedPipe(server->pipe);
    }
    return 0;
}

BOOL service_pipe(const wchar_t *name, pipe_answer answer)
{
    pipe_server *server = lab_alloc(sizeof *server);

    server->name = name;
    server->answer = answer;
    server->pipe = make_pipe(name);
    if (server->pipe == INVALID_HANDLE_VALUE)
        return FALSE;
    CloseHandle(CreateThread(NULL, 0, pipe_thread, server, 0, NULL));
    return TRUE;
}

/* ---- AppHostSvc: configuration history -------------------------------------------------------------------------- */

static BOOL same_file(const wchar_t *a, const wchar_t *b)
{
    BYTE *left, *right;
    DWORD left_size, right_size;
    BOOL same = FALSE;

    if (lab_read_file(a, &left, &left_size))
        return FALSE;
    if (!lab_read_file(b, &right, &right_size)) {
        same = left_size == right_size && !memcmp(left, right, left_size);
        free(right);
    }
    free(left);
    return same;
}

static void history_numbers(const wchar_t *folder, DWORD *count, DWORD *lowest, DWORD *highest)
{
    wchar_t *pattern = lab_format(L"%ls\\CFGHISTORY_*", folder);
    WIN32_FIND_DATAW found;
    HANDLE find = FindFirstFileW(pattern, &found);

    *count = *highest = 0;
    *lowest = MAXDWORD;
    free(pattern);
    if (find == INVALID_HANDLE_VALUE)
        return;
    do {
        DWORD number = wcstoul(found.cFileName + 11, NULL, 10);
        if (!(found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) || wcslen(found.cFileName) != 21)
            continue;
        ++*count;
        if (number > *highest)
            *highest = number;
        if (number < *lowest)
            *lowest = number;
    } while (FindNextFileW(find, &found));
    FindClose(find);
}

static void copy_into(const wchar_t *from, const wchar_t *folder, const wchar_t *name)
{
    wchar_t *source = lab_format(L"%ls\\%ls", from, name), *target = lab_format(L"%ls\\%ls", folder, name);

    CopyFileW(source, target, FALSE);
    free(source);
    free(target);
}

static void copy_schema(const wchar_t *config, const wchar_t *folder)
{
    wchar_t *pattern = lab_format(L"%ls\\schema\\*.xml", config), *from = lab_format(L"%ls\\schema", config);
    wchar_t *to = lab_format(L"%ls\\schema", folder);
    WIN32_FIND_DATAW found;
    HANDLE find = FindFirstFileW(pattern, &found);

    if (find != INVALID_HANDLE_VALUE) {
        CreateDirectoryW(to, NULL);
        do
            copy_into(from, to, found.cFileName);
        while (FindNextFileW(find, &found));
        FindClose(find);
    }
    free(pattern);
    free(from);
    free(to);
}

static BOOL remove_folder(const wchar_t *folder)
{
    wchar_t *pattern = lab_format(L"%ls\\*", folder);
    WIN32_FIND_DATAW found;
    HANDLE find = FindFirstFileW(pattern, &found);

    free(pattern);
    if (find != INVALID_HANDLE_VALUE) {
        do {
            wchar_t *path = lab_format(L"%ls\\%ls", folder, found.cFileName);
            if (!(found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY))
                DeleteFileW(path);
            else if (wcscmp(found.cFileName, L".") && wcscmp(found.cFileName, L".."))
                remove_folder(path);
            free(path);
        } while (FindNextFileW(find, &found));
        FindClose(find);
    }
    return RemoveDirectoryW(folder);
}

static void make_history(void)
{
    wchar_t config[MAX_PATH], history[MAX_PATH] = L"C:\\inetpub\\history", *file, *folder;
    DWORD error, count, lowest, highest, most = 10;
    lab_document *document;
    lab_node *section;
    BOOL enabled = TRUE;

    lab_config_folder(config, MAX_PATH);
    file = lab_format(L"%ls\\applicationHost.config", config);
    document = lab_config_load(file, &error);
    if (document && !document->error) {
        section = lab_app_host(document, L"configHistory");
        enabled = lab_true(lab_get(section, L"enabled", L"true"));
        most = wcstoul(lab_get(section, L"maxHistories", L"10"), NULL, 10);
        lab_expand(lab_get(section, L"path", L"%SYSTEMDRIVE%\\inetpub\\history"), history, MAX_PATH);
    }
    lab_xml_free(document);
    if (!document || !enabled) {
        free(file);
        return;
    }
    if (!_wcsicmp(history, L"C:\\inetpub\\history"))
        lab_make_folders(history);
    if (!lab_exists(history)) {
        lab_event(LAB_HELPER_SOURCE, 9005, L"Error", 0,
                  L"The Application Host Helper Service did not find the configuration history directory '%ls'.", history);
        free(file);
        return;
    }
    history_numbers(history, &count, &lowest, &highest);
    folder = lab_format(L"%ls\\CFGHISTORY_%010lu\\applicationHost.config", history, highest);
    if (!count || !same_file(file, folder)) {
        free(folder);
        folder = lab_format(L"%ls\\CFGHISTORY_%010lu", history, highest + 1);
        CreateDirectoryW(folder, NULL);
        copy_into(config, folder, L"applicationHost.config");
        copy_into(config, folder, L"administration.config");
        copy_schema(config, folder);
        for (count++; count > most && most; count--) {
            wchar_t *oldest;
            DWORD n, h;
            history_numbers(history, &n, &lowest, &h);
            oldest = lab_format(L"%ls\\CFGHISTORY_%010lu", history, lowest);
            if (!remove_folder(oldest))
                lab_event(LAB_HELPER_SOURCE, 9009, L"Error", 0,
                          L"The Application Host Helper Service encountered an error trying to delete the history "
                          L"directory '%ls'.",
                          oldest);
            free(oldest);
        }
    }
    free(folder);
    free(file);
}

static DWORD helper_run(HANDLE stop)
{
    WIN32_FILE_ATTRIBUTE_DATA seen = {0}, done = {0}, now;
    wchar_t config[MAX_PATH], *file;

    lab_config_folder(config, MAX_PATH);
    file = lab_format(L"%ls\\applicationHost.config", config);
    do {
        memset(&now, 0, sizeof now);
        if (lab_exists(LAB_ROOT L"\\history.paused")) /* a test compares the files at this moment */
            continue;
        if (!GetFileAttributesExW(file, GetFileExInfoStandard, &now))
            continue;
        /* the same twice: nobody is writing it */
        if (!memcmp(&now.ftLastWriteTime, &seen.ftLastWriteTime, sizeof now.ftLastWriteTime)
            && now.nFileSizeLow == seen.nFileSizeLow
            && (memcmp(&now.ftLastWriteTime, &done.ftLastWriteTime, sizeof now.ftLastWriteTime)
                || now.nFileSizeLow != done.nFileSizeLow)) {
            make_history();
            done = now;
        }
        seen = now;
    } while (WaitForSingleObject(stop, 1000) == WAIT_TIMEOUT);
    free(file);
    return 0;
}

/* ---- WMSVC and FTPSVC ------------------------------------------------------------------------------------------- */

static DWORD management_start(void)
{
    HCRYPTPROV provider;
    DWORD error = lab_container_access(L"iisWasKey", L"S-1-5-19"); /* runs as LOCAL SERVICE */

    if (!error)
        error = lab_container_open(L"iisWasKey", &provider);
    if (error) {
        lab_event(L"Microsoft-Windows-IIS-WMSVC", 2102, L"Error", error,
                  L"IIS Manager service could not open the key container iisWasKey. The data field contains the error number.");
        return error;
    }
    CryptReleaseContext(provider, 0);
    return 0;
}

static DWORD ftp_start(void)
{
    HCRYPTPROV provider;
    DWORD error = lab_container_open(L"iisConfigurationKey", &provider);

    if (error) {
        lab_event(L"Microsoft-Windows-IIS-FTP", 7, L"Error", error,
                  L"The FTP Service could not open the key container iisConfigurationKey. The data field contains the "
                  L"error number.");
        return error;
    }
    CryptReleaseContext(provider, 0);
    return 0;
}

const lab_service helper_service = {
    L"AppHostSvc", L"Application Host Helper Service",
    L"Provides administrative services for IIS, for example configuration history and application pool account mapping.",
    NULL, SERVICE_AUTO_START, NULL, helper_run, NULL};
const lab_service management_service = {
    L"WMSVC", L"Web Management Service", L"Enables remote and delegated management of the web server.",
    NULL, SERVICE_DEMAND_START, management_start, NULL, NULL};
const lab_service ftp_service = {
    L"FTPSVC", L"Microsoft FTP Service", L"Enables this server to be a File Transfer Protocol server.",
    NULL, SERVICE_AUTO_START, ftp_start, NULL, NULL};

/* ---- install, unelevated, main ---------------------------------------------------------------------------------- */

static int install(BOOL demand)
{
    SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_ALL_ACCESS), service;
    wchar_t program[MAX_PATH], *command, depends[64];
    int result = 0;
    size_t i;

    GetModuleFileNameW(NULL, program, MAX_PATH);
    for (i = 0; i < SERVICE_COUNT; i++) {
        const lab_service *s = services[i];
        SERVICE_DESCRIPTIONW description;
        DWORD type = demand && s != &key_files_service ? SERVICE_DEMAND_START : s->start_type;

        command = lab_format(L"%ls %ls", program, s->name);
        memset(depends, 0, sizeof depends);
        if (s->depends)
            wcscpy(depends, s->depends);
        service = CreateServiceW(manager, s->name, s->display, SERVICE_ALL_ACCESS, SERVICE_WIN32_OWN_PROCESS, type,
                                 SERVICE_ERROR_NORMAL, command, NULL, NULL, s->depends ? depends : NULL, NULL, NULL);
        if (!service && GetLastError() == ERROR_SERVICE_EXISTS) {
            service = OpenServiceW(manager, s->name, SERVICE_ALL_ACCESS);
            if (service)
                ChangeServiceConfigW(service, SERVICE_WIN32_OWN_PROCESS, type, SERVICE_ERROR_NORMAL, command, NULL, NULL,
                                     s->depends ? depends : NULL, NULL, NULL, s->display);
        }
        free(command);
        if (!service) {
            fprintf(stderr, "iissvc: cannot create the service %ls: error %lu\n", s->name, GetLastError());
            result = 1;
            continue;
        }
        description.lpDescription = (wchar_t *)s->description;
        ChangeServiceConfig2W(service, SERVICE_CONFIG_DESCRIPTION, &description);
        CloseServiceHandle(service);
    }
    CloseServiceHandle(manager);
    return result;
}

static int uninstall(void)
{
    SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_ALL_ACCESS), service;
    int result = 0;
    size_t i;

    for (i = 0; i < SERVICE_COUNT; i++) {
        service = OpenServiceW(manager, services[i]->name, DELETE);
        if (!service)
            continue;
        if (!DeleteService(service))
            result = 1;
        CloseServiceHandle(service);
    }
    CloseServiceHandle(manager);
    return result;
}

static int unelevated(void)
{
    BYTE administrators[SECURITY_MAX_SID_SIZE];
    STARTUPINFOW startup = {.cb = sizeof startup, .dwFlags = STARTF_USESTDHANDLES};
    PROCESS_INFORMATION process;
    SID_AND_ATTRIBUTES disabled = {administrators, 0};
    DWORD size = sizeof administrators, code = 1;
    HANDLE own, limited;
    wchar_t *command = GetCommandLineW();
    int skip;

    /* behind the program's name and the word "unelevated" */
    for (skip = 0; skip < 2; skip++) {
        BOOL quoted = FALSE;
        for (; *command && (quoted || !iswspace(*command)); command++)
            if (*command == L'"')
                quoted = !quoted;
        while (iswspace(*command))
            command++;
    }
    if (!CreateWellKnownSid(WinBuiltinAdministratorsSid, NULL, administrators, &size)
        || !OpenProcessToken(GetCurrentProcess(), TOKEN_ALL_ACCESS, &own)
        || !CreateRestrictedToken(own, DISABLE_MAX_PRIVILEGE, 1, &disabled, 0, NULL, 0, NULL, &limited)) {
        fprintf(stderr, "iissvc: cannot make a restricted token: error %lu\n", GetLastError());
        return 1;
    }
    startup.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    startup.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    startup.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    command = lab_wcsdup(command);
    if (!CreateProcessAsUserW(limited, NULL, command, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &process)) {
        fprintf(stderr, "iissvc: cannot start %ls: error %lu\n", command, GetLastError());
        return 1;
    }
    WaitForSingleObject(process.hProcess, INFINITE);
    GetExitCodeProcess(process.hProcess, &code);
    return (int)code;
}

int wmain(int count, wchar_t **words)
{
    SERVICE_TABLE_ENTRYW table[2] = {{NULL, NULL}, {NULL, NULL}};

    if (count >= 2 && !_wcsicmp(words[1], L"install"))
        return install(count > 2 && !_wcsicmp(words[2], L"demand"));
    if (count == 2 && !_wcsicmp(words[1], L"uninstall"))
        return uninstall();
    if (count > 2 && !_wcsicmp(words[1], L"unelevated"))
        return unelevated();
    current = count == 2 ? find_service(words[1]) : NULL;
    if (!current) {
        fputs("usage: iissvc NAME | install [auto|demand] | uninstall | unelevated COMMANDLINE...\n", stderr);
        return 2;
    }
    InitializeCriticalSection(&status_lock);
    SetUnhandledExceptionFilter(crash);
    table[0].lpServiceName = (wchar_t *)current->name;
    table[0].lpServiceProc = service_main;
    if (!StartServiceCtrlDispatcherW(table)) {
        fprintf(stderr, "iissvc: %ls must be started by the service control manager: error %lu\n", current->name,
                GetLastError());
        return 1;
    }
    return 0;
}
