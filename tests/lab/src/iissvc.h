/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The parts of iissvc.exe.
 */
#ifndef IISSVC_H
#define IISSVC_H

#include "lab.h"

typedef struct {
    const wchar_t *name, *display, *description, *depends; /* depends: one name or NULL */
    DWORD start_type;
    DWORD (*start)(void);         /* 0, or an HRESULT: the service does not start */
    DWORD (*run)(HANDLE stop);    /* until stop is set; not 0: the service ends with that error */
    void (*stop)(void);
} lab_service;

extern const lab_service was_service, w3svc_service, helper_service, management_service, ftp_service,
    key_files_service;

/* Progress while starting or stopping: keeps the service control manager patient. */
void service_progress(void);
/* While held the service accepts no stop. */
void service_hold(BOOL hold);

/* Serves one request at a time; `answer` returns a text to free(). The pipe vanishes with the process. */
typedef char *(*pipe_answer)(char *request);
BOOL service_pipe(const wchar_t *name, pipe_answer answer);

/* Tab-separated fields in place; returns how many. */
int split_fields(char *line, char **fields, int most);

typedef struct {
    char *text;
    size_t used, size;
} text_buffer;
void text_add(text_buffer *buffer, const char *format, ...);

#endif
