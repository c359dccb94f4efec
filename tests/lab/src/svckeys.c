/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * LabKeyFiles: Wine keeps CryptoAPI machine containers in the registry; Windows keeps each in a file of
 * %ProgramData%\Microsoft\Crypto\RSA\MachineKeys. This service keeps both in step, in both directions:
 *
 *   container made or changed   -> its file is written (name by the rule of Windows; content: the container's registry
 *                                  values, which Wine protects with DPAPI)
 *   container deleted           -> its file is deleted
 *   file deleted                -> the container is deleted, a second later
 *   file of this machine copied back or replaced -> the container is what the file says; a file of another shape
 *                                  damages the container (it opens, but has no key pair)
 *
 * Wine protects the values anew whenever somebody has opened a container, so the registry changes by looking. A file
 * does not: it is written only when what is protected is another key.
 *
 * Wine also forgets the security descriptors of the registry when its server ends. They are kept in C:\lab\acl\NAME.sddl
 * and given back to a container that has only the default one.
 *
 * When both changed since the last look the registry wins. While C:\lab\keyfiles.paused exists nothing is done, so that a
 * test can stage a file without a key or a key without a file; afterwards the registry wins for every container that
 * exists, and a valid file without a container brings it back.
 */
#include "iissvc.h"

#include <sddl.h>

#define STORE L"Software\\Wine\\Crypto\\RSA"
#define MAGIC "LABRSA1"

typedef struct {
    BYTE *bytes;
    DWORD size;
} blob;

typedef struct entry {
    wchar_t *name;
    BYTE digest[32]; /* of the key in the registry, as last seen */
    blob raw;        /* the registry's values, as last seen */
    blob file;       /* as last seen or written */
    wchar_t *path;
    wchar_t *sddl;
    ULONGLONG absent; /* since when the file is not there, 0 while it is */
    BOOL seen;
    struct entry *next;
} entry;

static entry *entries;
static wchar_t folder[MAX_PATH], guid[64];

static BOOL same(const blob *a, const blob *b)
{
    return a->size == b->size && !a->bytes == !b->bytes && (!a->bytes || !memcmp(a->bytes, b->bytes, a->size));
}

static void move_blob(blob *to, blob *from)
{
    free(to->bytes);
    *to = *from;
    memset(from, 0, sizeof *from);
}

static void add(blob *to, const void *bytes, DWORD size)
{
    to->bytes = realloc(to->bytes, (size_t)to->size + size + 1);
    if (!to->bytes)
        ExitProcess(ERROR_NOT_ENOUGH_MEMORY);
    memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
}

static void add_text(blob *to, const wchar_t *text)
{
    DWORD size = (DWORD)(wcslen(text) * sizeof(wchar_t));
    add(to, &size, sizeof size);
    add(to, text, size);
}

static wchar_t *file_of(const wchar_t *name)
{
    wchar_t prefix[33];
    lab_key_prefix(name, FALSE, prefix);
    return lab_format(L"%ls\\%ls_%ls", folder, prefix, guid);
}

static HKEY open_store(REGSAM access)
{
    HKEY key = NULL;
    RegCreateKeyExW(HKEY_LOCAL_MACHINE, STORE, 0, NULL, 0, access | KEY_WOW64_64KEY, NULL, &key, NULL);
    return key;
}

/* The container's values in a form that depends on nothing else. FALSE: no such container. */
static BOOL dump(HKEY store, const wchar_t *name, blob *out)
{
    wchar_t names[16][128];
    DWORD count = 0, i, j, length, type, size;
    BYTE *data;
    HKEY key;

    memset(out, 0, sizeof *out);
    if (RegOpenKeyExW(store, name, 0, KEY_READ, &key))
        return FALSE;
    for (i = 0; count < 16; i++) {
        length = 128;
        if (RegEnumValueW(key, i, names[count], &length, NULL, NULL, NULL, NULL))
            break;
        for (j = count; j && wcscmp(names[j - 1], names[j]) > 0; j--) {
            wchar_t swap[128];
            wcscpy(swap, names[j]);
            wcscpy(names[j], names[j - 1]);
            wcscpy(names[j - 1], swap);
        }
        count++;
    }
    add(out, MAGIC, 8);
    add_text(out, name);
    for (i = 0; i < count; i++) {
        size = 0;
        RegQueryValueExW(key, names[i], NULL, &type, NULL, &size);
        data = lab_alloc((size_t)size + 1);
        if (!RegQueryValueExW(key, names[i], NULL, &type, data, &size)) {
            add_text(out, names[i]);
            add(out, &type, sizeof type);
            add(out, &size, sizeof size);
            add(out, data, size);
        }
        free(data);
    }
    RegCloseKey(key);
    return TRUE;
}

static wchar_t *take_text(const blob *from, DWORD *at)
{
    DWORD size;
    wchar_t *text;

    if (from->size - *at < sizeof size)
        return NULL;
    memcpy(&size, from->bytes + *at, sizeof size);
    if (size > 512 || size > from->size - *at - sizeof size)
        return NULL;
    text = lab_alloc((size_t)size + sizeof(wchar_t));
    memcpy(text, from->bytes + *at + sizeof size, size);
    *at += (DWORD)sizeof size + size;
    return text;
}

/* The container's name in a file, NULL when the file is not one of ours. */
static wchar_t *name_in(const blob *file)
{
    DWORD at = 8;
    return file->size > 12 && !memcmp(file->bytes, MAGIC, 8) ? take_text(file, &at) : NULL;
}

/* What a dump says, whatever the protection looks like. */
static void digest_of(const blob *from, BYTE out[32])
{
    wchar_t *value, *name = name_in(from);
    DWORD at = 8, type, size;
    blob clear = {0};

    if (!name) {
        lab_hash(CALG_SHA_256, from->bytes, from->size, out, 32);
        return;
    }
    free(name);
    free(take_text(from, &at));
    while ((value = take_text(from, &at)) != NULL) {
        DATA_BLOB in, inside;
        add_text(&clear, value);
        free(value);
        if (from->size - at < 8)
            break;
        memcpy(&type, from->bytes + at, 4);
        memcpy(&size, from->bytes + at + 4, 4);
        at += 8;
        if (size > from->size - at)
            break;
        in.cbData = size;
        in.pbData = from->bytes + at;
        if (type == REG_BINARY && CryptUnprotectData(&in, NULL, NULL, NULL, NULL, CRYPTPROTECT_UI_FORBIDDEN, &inside)) {
            add(&clear, inside.pbData, inside.cbData);
            SecureZeroMemory(inside.pbData, inside.cbData);
            LocalFree(inside.pbData);
        } else {
            add(&clear, in.pbData, in.cbData);
        }
        at += size;
    }
    lab_hash(CALG_SHA_256, clear.bytes ? clear.bytes : (BYTE *)"", clear.size, out, 32);
    if (clear.bytes)
        SecureZeroMemory(clear.bytes, clear.size);
    free(clear.bytes);
}

static wchar_t *sddl_of(HKEY store, const wchar_t *name)
{
    BYTE descriptor[4096];
    DWORD size = sizeof descriptor;
    wchar_t *text = NULL, *copy = NULL;
    HKEY key;

    if (RegOpenKeyExW(store, name, 0, READ_CONTROL, &key))
        return NULL;
    if (!RegGetKeySecurity(key, DACL_SECURITY_INFORMATION, descriptor, &size)
        && ConvertSecurityDescriptorToStringSecurityDescriptorW(descriptor, SDDL_REVISION_1, DACL_SECURITY_INFORMATION,
                                                                &text, NULL)) {
        copy = lab_wcsdup(text);
        LocalFree(text);
    }
    RegCloseKey(key);
    return copy;
}

static void keep_descriptor(HKEY store, entry *e)
{
    wchar_t *now = sddl_of(store, e->name), *standard = sddl_of(store, NULL), *path;
    PSECURITY_DESCRIPTOR descriptor;
    BYTE *saved;
    DWORD size;
    char *text;
    HKEY key;

    path = lab_format(LAB_ROOT L"\\acl\\%ls.sddl", e->name);
    if (now && standard && !e->sddl && !wcscmp(now, standard) && !lab_read_file(path, &saved, &size)) {
        wchar_t *wanted = lab_wide((char *)saved);
        free(saved);
        wanted[wcscspn(wanted, L"\r\n")] = 0;
        if (ConvertStringSecurityDescriptorToSecurityDescriptorW(wanted, SDDL_REVISION_1, &descriptor, NULL)) {
            if (!RegOpenKeyExW(store, e->name, 0, WRITE_DAC, &key)) {
                RegSetKeySecurity(key, DACL_SECURITY_INFORMATION, descriptor);
                RegCloseKey(key);
            }
            LocalFree(descriptor);
        }
        free(wanted);
        free(now);
        now = sddl_of(store, e->name);
    }
    if (now && (!e->sddl || wcscmp(now, e->sddl))) {
        if (!standard || wcscmp(now, standard)) {
            text = lab_utf8(now);
            lab_make_folders(LAB_ROOT L"\\acl");
            lab_write_file(path, text, (DWORD)strlen(text));
            free(text);
        } else {
            DeleteFileW(path);
        }
        free(e->sddl);
        e->sddl = now;
        now = NULL;
    }
    free(now);
    free(standard);
    free(path);
}

static void restore(HKEY store, const wchar_t *name, const blob *file)
{
    wchar_t *inside = name_in(file), *value, old[128];
    DWORD at = 8, type, size, length = 128;
    BOOL valid = inside && !_wcsicmp(inside, name);
    HKEY key;

    free(inside);
    if (RegCreateKeyExW(store, name, 0, NULL, 0, KEY_ALL_ACCESS, NULL, &key, NULL))
        return;
    while (!RegEnumValueW(key, 0, old, &length, NULL, NULL, NULL, NULL)) {
        if (RegDeleteValueW(key, old))
            break;
        length = 128;
    }
    if (!valid) {
        RegSetValueExW(key, L"KeyExchangeKeyPair", 0, REG_BINARY, file->bytes, file->size < 64 ? file->size : 64);
    } else {
        free(take_text(file, &at));
        while ((value = take_text(file, &at)) != NULL) {
            if (file->size - at >= 8) {
                memcpy(&type, file->bytes + at, 4);
                memcpy(&size, file->bytes + at + 4, 4);
                at += 8;
                if (size <= file->size - at)
                    RegSetValueExW(key, value, 0, type, file->bytes + at, size);
                at += size <= file->size - at ? size : file->size - at;
            }
            free(value);
        }
    }
    RegCloseKey(key);
}

static void forget(entry **link)
{
    entry *gone = *link;
    *link = gone->next;
    free(gone->name);
    free(gone->raw.bytes);
    free(gone->path);
    free(gone->sddl);
    free(gone->file.bytes);
    free(gone);
}

static void read_blob(const wchar_t *path, blob *out)
{
    memset(out, 0, sizeof *out);
    lab_read_file(path, &out->bytes, &out->size);
}

static void look_at(HKEY store, const wchar_t *name)
{
    BYTE digest[32], file_digest[32];
    const wchar_t *path;
    blob registry, file;
    BOOL known = TRUE;
    entry *e;

    for (e = entries; e && _wcsicmp(e->name, name); e = e->next)
        ;
    if (!dump(store, name, &registry))
        return;
    if (!e) {
        e = lab_alloc(sizeof *e);
        e->name = lab_wcsdup(name);
        e->path = file_of(name);
        e->next = entries;
        entries = e;
        known = FALSE;
    }
    e->seen = TRUE;
    path = e->path;
    if (known && same(&registry, &e->raw))
        memcpy(digest, e->digest, 32);
    else
        digest_of(&registry, digest);
    read_blob(path, &file);
    if (!known || memcmp(digest, e->digest, 32)) {
        memcpy(e->digest, digest, 32);
        digest_of(&file, file_digest);
        if (!file.bytes || memcmp(digest, file_digest, 32)) {
            if (lab_write_file(path, registry.bytes, registry.size))
                memset(e->digest, 0, 32); /* try again at the next look */
            free(file.bytes);
            read_blob(path, &file);
        }
        move_blob(&e->file, &file);
    } else if (same(&file, &e->file)) {
        e->absent = 0;
    } else {
        if (!file.bytes) {
            /* Who deletes the file deletes the key; but a state that is being restored takes files away for a moment. */
            if (GetFileAttributesW(path) != INVALID_FILE_ATTRIBUTES || GetLastError() != ERROR_FILE_NOT_FOUND) {
                e->absent = 0;
            } else if (!e->absent) {
                e->absent = GetTickCount64();
            } else if (GetTickCount64() - e->absent > 300) {
                RegDeleteTreeW(store, name);
                e->seen = FALSE;
            }
        } else {
            digest_of(&file, file_digest);
            if (memcmp(digest, file_digest, 32)) {
                restore(store, name, &file);
                free(registry.bytes);
                dump(store, name, &registry);
                digest_of(&registry, e->digest);
            }
            move_blob(&e->file, &file);
        }
    }
    if (e->seen)
        keep_descriptor(store, e);
    move_blob(&e->raw, &registry);
    free(file.bytes);
}

/* Files of this machine without a container: one that was copied back brings its container back. */
static void look_at_files(HKEY store)
{
    wchar_t *pattern = lab_format(L"%ls\\*_%ls", folder, guid);
    WIN32_FIND_DATAW found;
    HANDLE find = FindFirstFileW(pattern, &found);
    HKEY key;

    free(pattern);
    if (find == INVALID_HANDLE_VALUE)
        return;
    do {
        wchar_t *path = lab_format(L"%ls\\%ls", folder, found.cFileName), *name, *expected;
        blob file;
        entry *e;

        for (e = entries; e && _wcsicmp(e->path, path); e = e->next)
            ;
        if (e) {
            free(path);
            continue;
        }
        read_blob(path, &file);
        name = name_in(&file);
        if (name) {
            expected = file_of(name);
            if (!_wcsicmp(expected, path) && RegOpenKeyExW(store, name, 0, KEY_READ, &key)) {
                restore(store, name, &file);
                look_at(store, name);
            } else if (!_wcsicmp(expected, path)) {
                RegCloseKey(key);
            }
            free(expected);
            free(name);
        }
        free(file.bytes);
        free(path);
    } while (FindNextFileW(find, &found));
    FindClose(find);
}

/* Whether the container is really not there: enumerating passes over a key while another one is being deleted. */
static BOOL is_gone(HKEY store, const wchar_t *name)
{
    HKEY key;

    if (RegOpenKeyExW(store, name, 0, KEY_READ, &key))
        return TRUE;
    RegCloseKey(key);
    return FALSE;
}

static void step(HKEY store)
{
    wchar_t name[256];
    DWORD i, length;
    entry **link, *e;

    for (e = entries; e; e = e->next)
        e->seen = FALSE;
    for (i = 0;; i++) {
        length = 256;
        if (RegEnumKeyExW(store, i, name, &length, NULL, NULL, NULL, NULL))
            break;
        look_at(store, name);
    }
    for (link = &entries; *link;) {
        wchar_t *path;
        blob file;

        if ((*link)->seen || !is_gone(store, (*link)->name)) {
            link = &(*link)->next;
            continue;
        }
        read_blob((*link)->path, &file);
        if (file.bytes && same(&file, &(*link)->file) && !DeleteFileW((*link)->path) && GetLastError() != ERROR_FILE_NOT_FOUND) {
            free(file.bytes);
            link = &(*link)->next; /* somebody holds the file: at the next look */
            continue;
        }
        /* a file that changed at the same time stays and brings its container back */
        free(file.bytes);
        path = lab_format(LAB_ROOT L"\\acl\\%ls.sddl", (*link)->name);
        DeleteFileW(path);
        free(path);
        forget(link);
    }
    look_at_files(store);
}

static DWORD key_files_run(HANDLE stop)
{
    HANDLE changed = CreateEventW(NULL, FALSE, FALSE, NULL), watch, handles[3];
    BOOL paused = FALSE;
    wchar_t now[64];

    lab_program_data(L"Microsoft\\Crypto\\RSA\\MachineKeys", folder, MAX_PATH);
    lab_make_folders(folder);
    watch = FindFirstChangeNotificationW(folder, FALSE, FILE_NOTIFY_CHANGE_FILE_NAME | FILE_NOTIFY_CHANGE_SIZE
                                                            | FILE_NOTIFY_CHANGE_LAST_WRITE);
    for (;;) {
        HKEY store = open_store(KEY_ALL_ACCESS | READ_CONTROL);
        DWORD result;

        RegNotifyChangeKeyValue(store, TRUE, REG_NOTIFY_CHANGE_NAME | REG_NOTIFY_CHANGE_LAST_SET, changed, TRUE);
        if (lab_exists(LAB_KEYFILES_PAUSED)) {
            paused = TRUE;
        } else {
            lab_machine_guid(now, 64);
            if (paused || wcscmp(now, guid)) /* begin anew: the registry wins */
                while (entries)
                    forget(&entries);
            paused = FALSE;
            wcscpy(guid, now);
            if (*guid)
                step(store);
        }
        handles[0] = stop;
        handles[1] = changed;
        handles[2] = watch;
        result = WaitForMultipleObjects(watch == INVALID_HANDLE_VALUE ? 2 : 3, handles, FALSE, 500);
        RegCloseKey(store);
        if (result == WAIT_OBJECT_0)
            break;
        if (result == WAIT_OBJECT_0 + 2)
            FindNextChangeNotification(watch);
    }
    FindCloseChangeNotification(watch);
    return 0;
}

const lab_service key_files_service = {
    L"LabKeyFiles", L"Lab Key Files", L"Keeps the files of MachineKeys in step with the CryptoAPI containers.",
    NULL, SERVICE_AUTO_START, NULL, key_files_run, NULL};
