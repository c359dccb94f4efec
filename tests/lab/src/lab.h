/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the programs that stand in for IIS share: reading the configuration, opening protected values with CryptoAPI
 * alone, events, faults, and the runtime state. None of it uses code of the collection: the two check each other.
 */
#ifndef LAB_H
#define LAB_H

#ifndef UNICODE
#define UNICODE
#endif
#ifndef _UNICODE
#define _UNICODE
#endif
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0A00
#endif
#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <windows.h>
#include <wincrypt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define LAB_ROOT L"C:\\lab"
#define LAB_EVENTS LAB_ROOT L"\\events.jsonl"
#define LAB_FAULTS LAB_ROOT L"\\faults"
#define LAB_ACCOUNTS LAB_ROOT L"\\accounts.txt"
#define LAB_ACL_IGNORE LAB_ROOT L"\\acl.ignore"
#define LAB_KEYFILES_PAUSED LAB_ROOT L"\\keyfiles.paused"
#define LAB_POOL_FOLDER L"C:\\inetpub\\temp\\apppools"
#define LAB_WAS_PIPE L"\\\\.\\pipe\\lab-was"
#define LAB_W3SVC_PIPE L"\\\\.\\pipe\\lab-w3svc"
#define LAB_PIPE_SIZE 65536

/* ---- memory and text ------------------------------------------------------------------------------------------- */

void *lab_alloc(size_t size);                    /* zeroed; ends the program when there is none */
wchar_t *lab_wcsdup(const wchar_t *text);
wchar_t *lab_format(const wchar_t *format, ...); /* free() the result */
char *lab_utf8(const wchar_t *text);             /* free() the result */
wchar_t *lab_wide(const char *text);             /* free() the result */
void lab_expand(const wchar_t *path, wchar_t *out, DWORD size);
/* %ProgramData%\<below> */
void lab_program_data(const wchar_t *below, wchar_t *out, DWORD size);
void lab_make_folders(const wchar_t *folder);
BOOL lab_exists(const wchar_t *path);

DWORD lab_read_file(const wchar_t *path, BYTE **bytes, DWORD *size); /* Win32 error */
DWORD lab_write_file(const wchar_t *path, const void *bytes, DWORD size); /* through a temporary name in C:\lab */

/* ---- XML ------------------------------------------------------------------------------------------------------- */

typedef struct lab_attribute {
    wchar_t *name;
    wchar_t *value;
    size_t start, end; /* the raw value in the document's text */
    int line;
    struct lab_attribute *next;
} lab_attribute;

typedef struct lab_node {
    wchar_t *name;
    int line;
    lab_attribute *attributes, *last_attribute;
    struct lab_node *parent, *child, *last_child, *next;
} lab_node;

typedef enum { LAB_UTF8, LAB_UTF8_BOM, LAB_UTF16LE, LAB_UTF16BE } lab_encoding;

typedef struct lab_document {
    wchar_t *text;
    size_t length;
    lab_encoding encoding;
    lab_node *root;
    int error_line;         /* 0: well-formed */
    const wchar_t *error;
} lab_document;

lab_document *lab_xml_parse(const BYTE *bytes, DWORD size); /* never NULL; look at ->error */
void lab_xml_free(lab_document *document);
BYTE *lab_xml_encode(const lab_document *document, const wchar_t *text, size_t length, DWORD *size);
lab_node *lab_child(const lab_node *node, const wchar_t *name);
lab_node *lab_path(const lab_node *node, const wchar_t *path); /* "a/b/c" */
const wchar_t *lab_get(const lab_node *node, const wchar_t *name, const wchar_t *otherwise);
lab_node *lab_next_node(const lab_node *root, const lab_node *node); /* document order */

/* ---- configuration --------------------------------------------------------------------------------------------- */

void lab_config_folder(wchar_t *out, DWORD size);
/* The file in force, redirection.config followed. */
DWORD lab_config_path(wchar_t *out, DWORD size);
/* error: a Win32 error of reading; a document with ->error when it is malformed. */
lab_document *lab_config_load(const wchar_t *path, DWORD *error);
lab_node *lab_app_host(const lab_document *document, const wchar_t *section); /* system.applicationHost/<section> */
BOOL lab_true(const wchar_t *text);
BOOL lab_is_protected(const wchar_t *value); /* [enc:X:data:enc] with data */
lab_node *lab_provider(const lab_document *document, const wchar_t *name);
/* A pool's own attribute or the one of applicationPoolDefaults. */
const wchar_t *lab_pool_get(const lab_node *pools, const lab_node *pool, const wchar_t *element, const wchar_t *name,
                            const wchar_t *otherwise);

/* ---- protected values ------------------------------------------------------------------------------------------ */

DWORD lab_container_open(const wchar_t *name, HCRYPTPROV *provider); /* HRESULT; AT_KEYEXCHANGE must be there */
/* Opens [enc:PROVIDER:DATA:enc] with the machine's own keys. 0 and the text (free()), or the HRESULT. */
DWORD lab_decrypt(const lab_document *document, const wchar_t *value, wchar_t **text);
const wchar_t *lab_container_of(const lab_document *document, const wchar_t *value); /* NULL: no such provider */
BOOL lab_plausible(const wchar_t *text); /* no control character, no lone surrogate, no noncharacter */
/* May this SID read the CryptoAPI container? 0, or 0x80090016 as the system says. */
DWORD lab_container_access(const wchar_t *container, const wchar_t *sid);
/* C:\lab\accounts.txt (user TAB sha256 of the password): 0, or 0x8007052E. Users that are not listed pass. */
DWORD lab_logon(const wchar_t *user, const wchar_t *password);
BOOL lab_hash(ALG_ID algorithm, const void *data, DWORD size, BYTE *out, DWORD out_size);
DWORD lab_hresult(DWORD error);
BOOL lab_machine_guid(wchar_t *out, DWORD characters);
/* File name prefix of a container: four little-endian words of MD5 over lower(name) + NUL. */
void lab_key_prefix(const wchar_t *name, BOOL cng, wchar_t out[33]);

/* ---- events, faults, state ------------------------------------------------------------------------------------- */

#define LAB_WAS_SOURCE L"Microsoft-Windows-WAS"
#define LAB_WORKER_SOURCE L"Microsoft-Windows-IIS-W3SVC-WP"
#define LAB_W3SVC_SOURCE L"Microsoft-Windows-IIS-W3SVC"
#define LAB_SCM_SOURCE L"Service Control Manager"
#define LAB_HELPER_SOURCE L"Microsoft-Windows-IIS-APPHOSTSVC"

void lab_event(const wchar_t *source, int id, const wchar_t *level, DWORD data, const wchar_t *format, ...);

typedef struct { DWORD ms, code; } lab_fault;
/* Is the fault file there? Its content may say ms=N, code=N and times=N (deleted after so many uses). */
BOOL lab_fault_on(lab_fault *fault, const wchar_t *format, ...);
/* The same, without counting a use. */
BOOL lab_fault_there(const wchar_t *format, ...);

/* One request over a service's pipe; FALSE when the service does not run. free() the reply. */
BOOL lab_ask(const wchar_t *pipe, const char *request, char **reply);

#endif
