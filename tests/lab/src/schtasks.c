/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Stand-in for schtasks.exe, which in Wine loses triggers, principal and command line of a definition. It keeps each task of the
 * root folder where Windows does, in System32\Tasks, as the definition that it was given; lab/scheduler.py starts what is due.
 * It knows
 *     schtasks /Create /TN name /XML file [/F]
 *     schtasks /Query [/TN name]
 *     schtasks /Delete /TN name /F
 * and refuses everything else. Exit code 1 with a line on standard error is a failure, as on Windows.
 *
 * Faults: schtasks-create, schtasks-delete (ms: takes that long; code: ends with it before anything is done).
 */
#include "lab.h"

#define SPACE L"http://schemas.microsoft.com/windows/2004/02/mit/task"

static int fail(const wchar_t *format, const wchar_t *name)
{
    wchar_t *text = lab_format(format, name);

    fwprintf(stderr, L"ERROR: %ls\r\n", text);
    free(text);
    return 1;
}

static void task_path(const wchar_t *name, wchar_t *out)
{
    wchar_t folder[MAX_PATH];

    GetSystemDirectoryW(folder, MAX_PATH);
    wcscat(folder, L"\\Tasks");
    lab_make_folders(folder);
    swprintf(out, MAX_PATH * 2, L"%ls\\%ls", folder, name);
}

/* What the Task Scheduler does not take: NULL when it would take this. */
static const wchar_t *definition_problem(const lab_document *document)
{
    static const wchar_t *const parts[] = {L"RegistrationInfo", L"Triggers", L"Principals", L"Settings", L"Actions"};
    const lab_node *node;
    size_t at;

    if (document->error)
        return L"The task XML is malformed.";
    if (document->encoding != LAB_UTF16LE || !wcsstr(document->text, L"encoding=\"UTF-16\""))
        return L"The task XML is malformed: unable to switch the encoding.";
    if (!document->root || wcscmp(document->root->name, L"Task") || wcscmp(lab_get(document->root, L"xmlns", L""), SPACE))
        return L"The task XML contains an unexpected node.";
    if (wcscmp(lab_get(document->root, L"version", L""), L"1.2"))
        return L"The task XML contains a value which is incorrectly formatted or out of range: version.";
    for (node = document->root->child; node; node = node->next) {
        for (at = 0; at < sizeof parts / sizeof *parts && wcscmp(node->name, parts[at]); at++)
            ;
        if (at == sizeof parts / sizeof *parts)
            return L"The task XML contains an unexpected node.";
    }
    if (!lab_path(document->root, L"Actions/Exec/Command"))
        return L"The task XML is missing a required element or attribute: Actions.";
    if (!lab_path(document->root, L"Principals/Principal/UserId"))
        return L"No mapping between account names and security IDs was done.";
    if (wcscmp(lab_get(lab_path(document->root, L"Principals/Principal"), L"id", L""),
               lab_get(lab_child(document->root, L"Actions"), L"Context", L"")))
        return L"The task XML contains a value which is incorrectly formatted or out of range: Context.";
    return NULL;
}

static int create(const wchar_t *name, const wchar_t *file, BOOL force)
{
    wchar_t path[MAX_PATH * 2];
    lab_document *document;
    const wchar_t *problem;
    BYTE *bytes;
    DWORD size;
    int status = 0;

    if (lab_read_file(file, &bytes, &size))
        return fail(L"The system cannot find the file specified.", name);
    task_path(name, path);
    document = lab_xml_parse(bytes, size);
    problem = definition_problem(document);
    if (problem)
        status = fail(L"%ls", problem);
    else if (lab_exists(path) && !force)
        status = fail(L"The task name \"%ls\" already exists, and nobody answers whether to replace it.", name);
    else if (lab_write_file(path, bytes, size))
        status = fail(L"Access is denied.", name);
    else
        wprintf(L"SUCCESS: The scheduled task \"%ls\" has successfully been created.\r\n", name);
    lab_xml_free(document);
    free(bytes);
    return status;
}

static int query(const wchar_t *name)
{
    wchar_t path[MAX_PATH * 2];
    WIN32_FIND_DATAW found;
    HANDLE search;

    if (name) {
        task_path(name, path);
        if (!lab_exists(path))
            return fail(L"The system cannot find the file specified.", name);
        wprintf(L"%ls\r\n", name);
        return 0;
    }
    task_path(L"*", path);
    search = FindFirstFileW(path, &found);
    if (search == INVALID_HANDLE_VALUE)
        return 0;
    do {
        if (!(found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY))
            wprintf(L"%ls\r\n", found.cFileName);
    } while (FindNextFileW(search, &found));
    FindClose(search);
    return 0;
}

static int delete_task(const wchar_t *name)
{
    wchar_t path[MAX_PATH * 2];

    task_path(name, path);
    if (!lab_exists(path))
        return fail(L"The specified task name \"%ls\" does not exist in the system.", name);
    if (!DeleteFileW(path))
        return fail(L"Access is denied.", name);
    wprintf(L"SUCCESS: The scheduled task \"%ls\" was successfully deleted.\r\n", name);
    return 0;
}

static BOOL faulty(const wchar_t *name, int *code)
{
    lab_fault fault;

    if (!lab_fault_on(&fault, L"schtasks-%ls", name))
        return FALSE;
    Sleep(fault.ms);
    *code = (int)fault.code;
    if (*code)
        fwprintf(stderr, L"ERROR: The task scheduler service is not available.\r\n");
    return *code != 0;
}

int wmain(int argc, wchar_t **argv)
{
    const wchar_t *verb = argc > 1 ? argv[1] : L"", *name = NULL, *file = NULL;
    BOOL force = FALSE, good = TRUE;
    int at, code = 0;

    for (at = 2; at < argc; at++) {
        if (!_wcsicmp(argv[at], L"/F"))
            force = TRUE;
        else if (!_wcsicmp(argv[at], L"/TN") && at + 1 < argc)
            name = argv[++at];
        else if (!_wcsicmp(argv[at], L"/XML") && at + 1 < argc)
            file = argv[++at];
        else
            good = FALSE;
    }
    if (name && wcspbrk(name, L"\\/:*?\"<>|"))
        good = FALSE;
    if (good && !_wcsicmp(verb, L"/Create") && name && file)
        return faulty(L"create", &code) ? code : create(name, file, force);
    if (good && !_wcsicmp(verb, L"/Query") && !file && !force)
        return query(name);
    /* Without /F it asks; nobody is there to answer. */
    if (good && !_wcsicmp(verb, L"/Delete") && name && !file && force)
        return faulty(L"delete", &code) ? code : delete_task(name);
    return fail(L"Invalid syntax, or an option that the lab does not know: %ls", verb);
}
