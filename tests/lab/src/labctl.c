/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * labctl: what the lab's Python needs to do inside a host, quickly.
 *
 *   labctl services NAME...          one line per service: NAME STATE STARTTYPE EXITCODE PID
 *   labctl start [-t SECONDS] NAME...  start in the given order; one line per service: NAME OK or NAME ERROR code
 *   labctl stop [-t SECONDS] NAME...   stop in the given order
 *   labctl startup NAME=auto|demand|disabled ...
 *   labctl lock FILE SECONDS [readable]   hold a file open without sharing, or so that it can be read and
 *                                    not replaced; prints "locked"
 */
#ifndef UNICODE
#define UNICODE
#endif
#define _WIN32_WINNT 0x0602
#include <windows.h>
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>

static const char *state_name(DWORD state) {
    switch (state) {
    case SERVICE_STOPPED: return "stopped";
    case SERVICE_START_PENDING: return "start_pending";
    case SERVICE_STOP_PENDING: return "stop_pending";
    case SERVICE_RUNNING: return "running";
    case SERVICE_PAUSED: return "paused";
    default: return "unknown";
    }
}

static const char *start_name(DWORD type) {
    switch (type) {
    case SERVICE_AUTO_START: return "auto";
    case SERVICE_DEMAND_START: return "demand";
    case SERVICE_DISABLED: return "disabled";
    default: return "other";
    }
}

static void answer(const wchar_t *name, DWORD code) {
    if (code == ERROR_SUCCESS) {
        printf("%ls OK\n", name);
    } else {
        printf("%ls ERROR %lu\n", name, code);
    }
}

static int services(SC_HANDLE manager, int count, wchar_t **names) {
    int i;
    for (i = 0; i < count; i++) {
        SERVICE_STATUS_PROCESS status;
        union {
            QUERY_SERVICE_CONFIGW config;
            BYTE bytes[8192];
        } buffer;
        DWORD needed;
        SC_HANDLE service = OpenServiceW(manager, names[i], SERVICE_QUERY_STATUS | SERVICE_QUERY_CONFIG);
        if (service == NULL) {
            printf("%ls missing - 0 0\n", names[i]);
            continue;
        }
        memset(&status, 0, sizeof(status));
        QueryServiceStatusEx(service, SC_STATUS_PROCESS_INFO, (BYTE *)&status, sizeof(status), &needed);
        if (!QueryServiceConfigW(service, &buffer.config, sizeof(buffer), &needed)) {
            buffer.config.dwStartType = 99;
        }
        printf("%ls %s %s %lu %lu\n", names[i], state_name(status.dwCurrentState), start_name(buffer.config.dwStartType),
               status.dwWin32ExitCode, status.dwProcessId);
        CloseServiceHandle(service);
    }
    return 0;
}

static DWORD wait_for(SC_HANDLE service, DWORD pending, DWORD wanted, DWORD seconds) {
    SERVICE_STATUS status;
    ULONGLONG end = GetTickCount64() + seconds * 1000ULL;
    for (;;) {
        if (!QueryServiceStatus(service, &status)) {
            return GetLastError();
        }
        if (status.dwCurrentState == wanted) {
            return ERROR_SUCCESS;
        }
        if (status.dwCurrentState != pending && status.dwCurrentState == SERVICE_STOPPED) {
            return status.dwWin32ExitCode ? status.dwWin32ExitCode : ERROR_SERVICE_NOT_ACTIVE;
        }
        if (GetTickCount64() > end) {
            return ERROR_TIMEOUT;
        }
        Sleep(20);
    }
}

static int change(SC_HANDLE manager, int start, DWORD seconds, int count, wchar_t **names) {
    int i, failed = 0;
    for (i = 0; i < count; i++) {
        SERVICE_STATUS status;
        DWORD code = ERROR_SUCCESS;
        SC_HANDLE service = OpenServiceW(manager, names[i], SERVICE_QUERY_STATUS | SERVICE_START | SERVICE_STOP);
        if (service == NULL) {
            code = GetLastError();
        } else {
            if (start) {
                if (!StartServiceW(service, 0, NULL)) {
                    code = GetLastError();
                }
                if (code == ERROR_SUCCESS || code == ERROR_SERVICE_ALREADY_RUNNING) {
                    code = wait_for(service, SERVICE_START_PENDING, SERVICE_RUNNING, seconds);
                }
            } else {
                if (!ControlService(service, SERVICE_CONTROL_STOP, &status)) {
                    code = GetLastError();
                }
                if (code == ERROR_SERVICE_NOT_ACTIVE) {
                    code = ERROR_SUCCESS;
                } else if (code == ERROR_SUCCESS || code == ERROR_SERVICE_CANNOT_ACCEPT_CTRL) {
                    code = wait_for(service, SERVICE_STOP_PENDING, SERVICE_STOPPED, seconds);
                }
            }
            CloseServiceHandle(service);
        }
        failed |= code != ERROR_SUCCESS;
        answer(names[i], code);
        fflush(stdout);
    }
    return failed;
}

static int startup(SC_HANDLE manager, int count, wchar_t **pairs) {
    int i, failed = 0;
    for (i = 0; i < count; i++) {
        wchar_t *equals = wcschr(pairs[i], L'=');
        DWORD type, code = ERROR_SUCCESS;
        SC_HANDLE service;
        if (equals == NULL) {
            return 2;
        }
        *equals = 0;
        type = !wcscmp(equals + 1, L"auto") ? SERVICE_AUTO_START : !wcscmp(equals + 1, L"disabled") ? SERVICE_DISABLED : SERVICE_DEMAND_START;
        service = OpenServiceW(manager, pairs[i], SERVICE_CHANGE_CONFIG);
        if (service == NULL || !ChangeServiceConfigW(service, SERVICE_NO_CHANGE, type, SERVICE_NO_CHANGE, NULL, NULL, NULL, NULL, NULL, NULL, NULL)) {
            code = GetLastError();
        }
        if (service != NULL) {
            CloseServiceHandle(service);
        }
        failed |= code != ERROR_SUCCESS;
        answer(pairs[i], code);
    }
    return failed;
}

static int hold_file(const wchar_t *path, DWORD seconds, DWORD sharing) {
    HANDLE file = CreateFileW(path, GENERIC_READ, sharing, NULL, OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) {
        printf("ERROR %lu\n", GetLastError());
        return 1;
    }
    printf("locked\n");
    fflush(stdout);
    Sleep(seconds * 1000);
    CloseHandle(file);
    return 0;
}

int wmain(int argc, wchar_t **argv) {
    SC_HANDLE manager;
    DWORD seconds = 30;
    int first = 2;
    if ((argc == 4 || argc == 5) && !wcscmp(argv[1], L"lock")) {
        return hold_file(argv[2], (DWORD)_wtoi(argv[3]), argc == 5 ? FILE_SHARE_READ : 0);
    }
    if (argc < 3) {
        fprintf(stderr, "usage: labctl services|start|stop|startup NAME...\n");
        return 2;
    }
    manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_CONNECT);
    if (manager == NULL) {
        fprintf(stderr, "labctl: no service manager, error %lu\n", GetLastError());
        return 3;
    }
    if (argc > 4 && !wcscmp(argv[2], L"-t")) {
        seconds = (DWORD)_wtoi(argv[3]);
        first = 4;
    }
    if (!wcscmp(argv[1], L"services")) {
        return services(manager, argc - first, argv + first);
    }
    if (!wcscmp(argv[1], L"start") || !wcscmp(argv[1], L"stop")) {
        return change(manager, !wcscmp(argv[1], L"start"), seconds, argc - first, argv + first);
    }
    if (!wcscmp(argv[1], L"startup")) {
        return startup(manager, argc - first, argv + first);
    }
    return 2;
}
