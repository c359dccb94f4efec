/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Opens protected values as IIS does, with CryptoAPI and the host's own containers.
 */
#include "lab.h"
#include <aclapi.h>
#include <sddl.h>

#ifndef CRYPT_OAEP
#define CRYPT_OAEP 0x40
#endif

DWORD lab_hresult(DWORD error)
{
    if (!error)
        return 0x80004005;
    return error & 0x80000000 ? error : 0x80070000 | (error & 0xFFFF);
}

BOOL lab_hash(ALG_ID algorithm, const void *data, DWORD size, BYTE *out, DWORD out_size)
{
    HCRYPTPROV provider = 0;
    HCRYPTHASH hash = 0;
    BOOL ok = CryptAcquireContextW(&provider, NULL, NULL, PROV_RSA_AES, CRYPT_VERIFYCONTEXT | CRYPT_SILENT)
           && CryptCreateHash(provider, algorithm, 0, 0, &hash) && CryptHashData(hash, data, size, 0)
           && CryptGetHashParam(hash, HP_HASHVAL, out, &out_size, 0);

    if (hash)
        CryptDestroyHash(hash);
    if (provider)
        CryptReleaseContext(provider, 0);
    return ok;
}

BOOL lab_machine_guid(wchar_t *out, DWORD characters)
{
    HKEY key;
    DWORD size = (characters - 1) * sizeof(wchar_t), type;
    LONG error = RegOpenKeyExW(HKEY_LOCAL_MACHINE, L"SOFTWARE\\Microsoft\\Cryptography", 0,
                               KEY_READ | KEY_WOW64_64KEY, &key);

    memset(out, 0, characters * sizeof(wchar_t));
    if (error)
        return FALSE;
    error = RegQueryValueExW(key, L"MachineGuid", NULL, &type, (BYTE *)out, &size);
    RegCloseKey(key);
    return !error && type == REG_SZ && *out;
}

void lab_key_prefix(const wchar_t *name, BOOL cng, wchar_t out[33])
{
    wchar_t *lower = lab_wcsdup(name);
    char narrow[MAX_PATH];
    DWORD words[4] = {0};

    CharLowerW(lower);
    if (cng) {
        lab_hash(CALG_MD5, lower, (DWORD)((wcslen(lower) + 1) * sizeof(wchar_t)), (BYTE *)words, 16);
    } else {
        WideCharToMultiByte(CP_ACP, 0, lower, -1, narrow, sizeof narrow, NULL, NULL);
        lab_hash(CALG_MD5, narrow, (DWORD)strlen(narrow) + 1, (BYTE *)words, 16);
    }
    swprintf(out, 33, L"%08lx%08lx%08lx%08lx", words[0], words[1], words[2], words[3]);
    free(lower);
}

DWORD lab_container_open(const wchar_t *name, HCRYPTPROV *provider)
{
    HCRYPTKEY key;
    DWORD error;

    *provider = 0;
    if (!CryptAcquireContextW(provider, name, NULL, PROV_RSA_AES, CRYPT_MACHINE_KEYSET | CRYPT_SILENT))
        return lab_hresult(GetLastError());
    if (!CryptGetUserKey(*provider, AT_KEYEXCHANGE, &key)) {
        error = lab_hresult(GetLastError());
        CryptReleaseContext(*provider, 0);
        *provider = 0;
        return error;
    }
    CryptDestroyKey(key);
    return 0;
}

static BYTE *from_base64(const wchar_t *text, DWORD characters, DWORD *size)
{
    BYTE *out;

    *size = 0;
    if (!CryptStringToBinaryW(text, characters, CRYPT_STRING_BASE64, NULL, size, NULL, NULL) || !*size)
        return NULL;
    out = lab_alloc((size_t)*size + 2);
    if (!CryptStringToBinaryW(text, characters, CRYPT_STRING_BASE64, out, size, NULL, NULL)) {
        free(out);
        return NULL;
    }
    return out;
}

/* Bytes to a text; strict UTF-16. */
static DWORD to_text(const BYTE *bytes, DWORD size, wchar_t **text)
{
    DWORD i;
    wchar_t *out = lab_alloc((size_t)size + 2);

    memcpy(out, bytes, size & ~1u);
    for (i = 0; i < size / 2; i++) {
        if ((out[i] & 0xFC00) == 0xD800 && i + 1 < size / 2 && (out[i + 1] & 0xFC00) == 0xDC00)
            i++;
        else if ((out[i] & 0xF800) == 0xD800) {
            SecureZeroMemory(out, size);
            free(out);
            return 0x80090005;
        }
    }
    *text = out;
    return 0;
}

BOOL lab_plausible(const wchar_t *text)
{
    for (; *text; text++)
        if (*text < 0x20 || (*text >= 0x7F && *text <= 0x9F) || (*text >= 0xFDD0 && *text <= 0xFDEF)
            || *text >= 0xFFFE
            || ((*text & 0xFC00) == 0xD800 && (text[0] & 0x3F) == 0x3F && (text[1] & 0x3FE) == 0x3FE))
            return FALSE;
    return TRUE;
}

static DWORD open_aes(const lab_node *provider, BYTE *data, DWORD size, wchar_t **text)
{
    const wchar_t *session = lab_get(provider, L"sessionKey", L"");
    HCRYPTPROV context;
    HCRYPTKEY exchange = 0, key = 0;
    DWORD blob_size, at, error = lab_container_open(lab_get(provider, L"keyContainerName", L""), &context);
    BYTE *blob;

    if (error)
        return error;
    blob = from_base64(session, 0, &blob_size);
    if (!blob) {
        CryptReleaseContext(context, 0);
        return 0x80090005;
    }
    if (!CryptGetUserKey(context, AT_KEYEXCHANGE, &exchange)
        || !CryptImportKey(context, blob, blob_size, exchange,
                           lab_true(lab_get(provider, L"useOAEP", L"false")) ? CRYPT_OAEP : 0, &key)
        || size % 16 || !CryptDecrypt(key, 0, FALSE, 0, data, &size))
        error = size % 16 && key ? 0x80090005 : lab_hresult(GetLastError());
    free(blob);
    if (key)
        CryptDestroyKey(key);
    if (exchange)
        CryptDestroyKey(exchange);
    CryptReleaseContext(context, 0);
    if (error)
        return error;
    /* 4 random bytes, text, 00 00, random tail, padding: the text ends at the first aligned 00 00 */
    for (at = 4; at + 1 < size; at += 2)
        if (!data[at] && !data[at + 1])
            return to_text(data + 4, at - 4, text);
    return 0x80090005;
}

static DWORD open_rsa(const lab_node *provider, BYTE *data, DWORD size, wchar_t **text)
{
    HCRYPTPROV context;
    HCRYPTKEY key = 0;
    DWORD error = lab_container_open(lab_get(provider, L"keyContainerName", L""), &context);

    if (error)
        return error;
    if (!CryptGetUserKey(context, AT_KEYEXCHANGE, &key)
        || !CryptDecrypt(key, 0, TRUE, lab_true(lab_get(provider, L"useOAEP", L"false")) ? CRYPT_OAEP : 0, data, &size))
        error = lab_hresult(GetLastError());
    if (key)
        CryptDestroyKey(key);
    CryptReleaseContext(context, 0);
    if (error)
        return error;
    if (size >= 2 && size % 2 == 0 && !data[size - 1] && !data[size - 2])
        size -= 2;
    return size % 2 ? 0x80090005 : to_text(data, size, text);
}

static DWORD open_cng(const lab_node *provider, BYTE *data, DWORD size, wchar_t **text)
{
    typedef DWORD(WINAPI * decrypt_function)(const wchar_t *, BYTE *, DWORD *);
    HMODULE library = LoadLibraryW(L"cngkeyhelper.dll");
    decrypt_function decrypt = library ? (decrypt_function)(void *)GetProcAddress(library, "IisCngDecrypt") : NULL;
    DWORD error;

    if (!decrypt)
        return lab_hresult(GetLastError());
    error = decrypt(lab_get(provider, L"keyContainerName", L""), data, &size);
    if (error)
        return lab_hresult(error);
    return size < 2 || size % 2 ? 0x80090005 : to_text(data, size - 2, text);
}

static lab_node *provider_of(const lab_document *document, const wchar_t *value)
{
    wchar_t name[128];
    const wchar_t *colon = wcschr(value + 5, L':');

    if (!lab_is_protected(value) || colon - (value + 5) > 120)
        return NULL;
    lstrcpynW(name, value + 5, (int)(colon - (value + 5)) + 1);
    return lab_provider(document, name);
}

const wchar_t *lab_container_of(const lab_document *document, const wchar_t *value)
{
    lab_node *provider = provider_of(document, value);
    return provider ? lab_get(provider, L"keyContainerName", L"") : NULL;
}

static BOOL ends_with(const wchar_t *text, const wchar_t *end)
{
    size_t a = wcslen(text), b = wcslen(end);
    return a >= b && !_wcsicmp(text + a - b, end);
}

DWORD lab_decrypt(const lab_document *document, const wchar_t *value, wchar_t **text)
{
    lab_node *provider = provider_of(document, value);
    const wchar_t *base64 = wcschr(value + 5, L':') + 1, *type;
    DWORD size, error;
    BYTE *data;

    *text = NULL;
    if (!provider)
        return 0x80070490; /* ERROR_NOT_FOUND */
    data = from_base64(base64, (DWORD)(wcslen(base64) - 5), &size);
    if (!data)
        return 0x8007000D;
    type = lab_get(provider, L"type", L"");
    if (!*type)
        error = open_rsa(provider, data, size, text);
    else if (ends_with(type, L"AesProtectedConfigurationProvider"))
        error = open_aes(provider, data, size, text);
    else if (ends_with(type, L"CngProtectedConfigurationProvider"))
        error = open_cng(provider, data, size, text);
    else
        error = 0x80070032;
    SecureZeroMemory(data, size);
    free(data);
    return error;
}

DWORD lab_container_access(const wchar_t *container, const wchar_t *sid_text)
{
    static const wchar_t *also[] = {L"S-1-1-0", L"S-1-5-11", L"S-1-5-32-545"};
    BYTE *descriptor;
    PSID wanted[4] = {0};
    HCRYPTPROV context = 0;
    BOOL present = FALSE, defaulted, found = FALSE;
    DWORD size = 0, error, i, j;
    PACL dacl = NULL;

    if (lab_exists(LAB_ACL_IGNORE))
        return 0;
    error = lab_container_open(container, &context);
    if (error)
        return error;
    CryptGetProvParam(context, PP_KEYSET_SEC_DESCR, NULL, &size, DACL_SECURITY_INFORMATION);
    descriptor = lab_alloc((size_t)size + 16);
    if (!size || !CryptGetProvParam(context, PP_KEYSET_SEC_DESCR, descriptor, &size, DACL_SECURITY_INFORMATION)
        || !GetSecurityDescriptorDacl((PSECURITY_DESCRIPTOR)descriptor, &present, &dacl, &defaulted)) {
        error = lab_hresult(GetLastError());
    } else if (present && dacl) {
        ConvertStringSidToSidW(sid_text, &wanted[0]);
        for (i = 0; i < 3; i++)
            ConvertStringSidToSidW(also[i], &wanted[i + 1]);
        for (i = 0; i < dacl->AceCount && !found; i++) {
            ACCESS_ALLOWED_ACE *ace;
            if (!GetAce(dacl, i, (void **)&ace) || ace->Header.AceType != ACCESS_ALLOWED_ACE_TYPE
                || (ace->Header.AceFlags & INHERIT_ONLY_ACE)
                || !(ace->Mask & (GENERIC_READ | GENERIC_ALL | 1)))
                continue;
            for (j = 0; j < 4; j++)
                found = found || (wanted[j] && EqualSid(wanted[j], (PSID)&ace->SidStart));
        }
        for (j = 0; j < 4; j++)
            LocalFree(wanted[j]);
        if (!found)
            error = 0x80090016; /* the system says "keyset does not exist" for this */
    }
    free(descriptor);
    CryptReleaseContext(context, 0);
    return error;
}

DWORD lab_logon(const wchar_t *user, const wchar_t *password)
{
    BYTE *bytes, digest[32];
    DWORD size, result = 0, i;
    char *line, *next, *tab, hex[65];
    char *name = lab_utf8(user);

    if (lab_read_file(LAB_ACCOUNTS, &bytes, &size)) {
        free(name);
        return 0;
    }
    lab_hash(CALG_SHA_256, password, (DWORD)(wcslen(password) * sizeof(wchar_t)), digest, sizeof digest);
    for (i = 0; i < 32; i++)
        sprintf(hex + 2 * i, "%02x", digest[i]);
    for (line = (char *)bytes; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        tab = strchr(line, '\t');
        if (!tab)
            continue;
        *tab++ = 0;
        if (!_stricmp(line, name))
            result = _strnicmp(tab, hex, 64) ? 0x8007052E : 0;
    }
    free(bytes);
    free(name);
    return result;
}
