/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Stand-in for aspnet_regiis.exe, as far as it works with machine key containers: -pc, -pz, -px, -pi. It follows the published source of
 * the managed half (regiisutil.cs): 2048 bits whatever -size says, an import replaces silently, a public key alone goes nowhere and counts as
 * done, a container that is missing is made with a random key before the file is read, and that key stays when the file is no good.
 * Exit code 0 or 1.
 */
#include "lab.h"

static const char *const parts[] = {"Modulus", "Exponent", "P", "Q", "DP", "DQ", "InverseQ", "D"};

static int done(DWORD status, const wchar_t *message)
{
    if (status)
        wprintf(L"%ls (0x%08lx)\r\nFailed!\r\n", message, status);
    else
        wprintf(L"Succeeded!\r\n");
    return status ? 1 : 0;
}

static DWORD make(const wchar_t *name, BOOL exportable)
{
    HCRYPTPROV provider;
    HCRYPTKEY key;
    DWORD status = 0;

    if (!CryptAcquireContextW(&provider, name, NULL, PROV_RSA_FULL, CRYPT_NEWKEYSET | CRYPT_MACHINE_KEYSET | CRYPT_SILENT))
        return lab_hresult(GetLastError());
    if (CryptGenKey(provider, AT_KEYEXCHANGE, 2048 << 16 | (exportable ? CRYPT_EXPORTABLE : 0), &key))
        CryptDestroyKey(key);
    else
        status = lab_hresult(GetLastError());
    CryptReleaseContext(provider, 0);
    return status;
}

/* Appends <NAME>base64</NAME> of a little-endian number. */
static void element(char *text, const char *name, const BYTE *number, DWORD size)
{
    BYTE *turned = lab_alloc(size);
    char *at = text + strlen(text);
    DWORD i, room;

    for (i = 0; i < size; i++)
        turned[i] = number[size - 1 - i];
    at += sprintf(at, "<%s>", name);
    room = 8192;
    CryptBinaryToStringA(turned, size, CRYPT_STRING_BASE64 | 0x40000000 /* NOCRLF */, at, &room);
    strcat(at, "</");
    strcat(at, name);
    strcat(at, ">");
    SecureZeroMemory(turned, size);
    free(turned);
}

static DWORD export_key(const wchar_t *name, const wchar_t *path, BOOL private_too)
{
    HCRYPTPROV provider;
    HCRYPTKEY key;
    BYTE blob[8192], exponent[3];
    DWORD size = sizeof blob, status = lab_container_open(name, &provider), length, i;
    char text[16384] = "<RSAKeyValue>";
    const BYTE *at = blob + 20;
    FILE *file;

    if (status)
        return status;
    if (!CryptGetUserKey(provider, AT_KEYEXCHANGE, &key))
        status = lab_hresult(GetLastError());
    else if (!CryptExportKey(key, 0, private_too ? PRIVATEKEYBLOB : PUBLICKEYBLOB, 0, blob, &size))
        status = lab_hresult(GetLastError());
    CryptReleaseContext(provider, 0);
    if (status)
        return status;
    length = *(DWORD *)(blob + 12) / 8;
    memcpy(exponent, blob + 16, 3);
    element(text, parts[0], at, length);
    element(text, parts[1], exponent, 3);
    at += length;
    for (i = 2; private_too && i < 8; i++) {
        element(text, parts[i], at, i == 7 ? length : length / 2);
        at += length / 2;
    }
    strcat(text, "</RSAKeyValue>");
    file = _wfopen(path, L"wb");
    if (!file)
        return 0x80070003;
    fwrite(text, 1, strlen(text), file);
    fclose(file);
    SecureZeroMemory(text, sizeof text);
    SecureZeroMemory(blob, sizeof blob);
    return 0;
}

/* The little-endian number in an element; 0 bytes when it is not there. */
static DWORD number(const char *text, const char *name, BYTE *out, DWORD room)
{
    char open[32];
    const char *start, *end;
    DWORD size = room, i;
    BYTE swap;

    sprintf(open, "<%s>", name);
    start = strstr(text, open);
    if (!start || !(end = strchr(start + 1, '<')))
        return 0;
    start += strlen(open);
    if (!CryptStringToBinaryA(start, (DWORD)(end - start), CRYPT_STRING_BASE64, out, &size, NULL, NULL))
        return 0;
    for (i = 0; i < size / 2; i++) {
        swap = out[i];
        out[i] = out[size - 1 - i];
        out[size - 1 - i] = swap;
    }
    return size;
}

static DWORD import_key(const wchar_t *name, const wchar_t *path, BOOL exportable)
{
    HCRYPTPROV provider;
    HCRYPTKEY key;
    BYTE *file, blob[8192] = {PRIVATEKEYBLOB, CUR_BLOB_VERSION, 0, 0, 0, 0xA4, 0, 0, 'R', 'S', 'A', '2'}, *at = blob + 20;
    DWORD size, status, length, i, count;
    char *text;

    if (lab_read_file(path, &file, &size))
        return 0x80070002;
    text = lab_alloc(size + 1);
    memcpy(text, file, size);
    free(file);
    /* The provider is opened before the file is understood. */
    status = lab_container_open(name, &provider);
    if (!status)
        CryptReleaseContext(provider, 0);
    else if ((status = make(name, exportable)))
        return status;
    length = number(text, "Modulus", at, 1024);
    count = number(text, "Exponent", blob + 16, 4);
    if (!length || !count)
        return 0x80090005;
    if (!strstr(text, "<P>"))
        return 0;
    *(DWORD *)(blob + 12) = length * 8;
    at += length;
    for (i = 2; i < 8; i++) {
        count = i == 7 ? length : length / 2;
        if (!number(text, parts[i], at, count))
            return 0x80090005;
        at += count;
    }
    SecureZeroMemory(text, size);
    free(text);
    status = lab_container_open(name, &provider);
    if (status)
        return status;
    if (CryptImportKey(provider, blob, (DWORD)(at - blob), 0, exportable ? CRYPT_EXPORTABLE : 0, &key))
        CryptDestroyKey(key);
    else
        status = lab_hresult(GetLastError());
    CryptReleaseContext(provider, 0);
    SecureZeroMemory(blob, sizeof blob);
    return status;
}

int wmain(int argc, wchar_t **argv)
{
    HCRYPTPROV provider;
    BOOL exportable = FALSE, private_too = FALSE;
    const wchar_t *verb = argc > 2 ? argv[1] : L"";
    DWORD status;
    int i;

    for (i = 3; i < argc; i++) {
        exportable |= !_wcsicmp(argv[i], L"-exp");
        private_too |= !_wcsicmp(argv[i], L"-pri");
    }
    wprintf(L"Microsoft (R) ASP.NET RegIIS, stand-in\r\n");
    if (!_wcsicmp(verb, L"-pi") && argc > 3)
        return done(import_key(argv[2], argv[3], exportable), L"The key was not imported.");
    status = *verb ? lab_container_open(argv[2], &provider) : 87;
    if (!status)
        CryptReleaseContext(provider, 0);
    if (!_wcsicmp(verb, L"-pc")) {
        if (!status)
            return done(0x8009000F, L"The RSA key container already exists.");
        return done(make(argv[2], exportable), L"The container was not made.");
    }
    if (status)
        return done(status, L"The RSA key container was not found.");
    if (!_wcsicmp(verb, L"-px") && argc > 3)
        return done(export_key(argv[2], argv[3], private_too), L"The key was not exported.");
    if (!_wcsicmp(verb, L"-pz") && CryptAcquireContextW(&provider, argv[2], NULL, PROV_RSA_FULL,
                                                        CRYPT_DELETEKEYSET | CRYPT_MACHINE_KEYSET | CRYPT_SILENT))
        return done(0, NULL);
    return done(lab_hresult(GetLastError()), L"This is not known here.");
}
