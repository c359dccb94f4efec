/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Stand-in for IIS's cngkeyhelper.dll with the two functions that others call. Wine has no CNG key of the kind that IIS
 * uses, so the key is 32 raw bytes in a file that is named as the real one:
 *
 *   %ProgramData%\Microsoft\Crypto\Keys\<prefix>_<MachineGuid>    8 bytes "LABKDF1" NUL + 32 bytes
 *
 * A value is IV (16) | check field (32) | AES-256-CBC ciphertext. The AES key comes from the raw key by SP800-108 in
 * counter mode with HMAC-SHA256 and the label and context that IIS uses. Not known of the real one, chosen here: the check
 * field is SHA-256 of the UTF-16LE text without its NUL and is verified; the padding is PKCS#7. The text that is encrypted
 * includes its 2-byte NUL. Everything is computed by CryptoAPI; bcrypt is not needed.
 */
#include "lab.h"

#define BAD_DATA 0x80090005u
#define BAD_KEYSET 0x80090016u
#define BAD_KEY_STATE 0x8009000Bu
#define FIELD 16
#define CIPHER 48

typedef struct {
    BLOBHEADER header;
    DWORD size;
    BYTE key[32];
} plain_key;

static DWORD answer(DWORD status)
{
    SetLastError(status);
    return status;
}

static void hmac_sha256(const BYTE *key, const BYTE *data, DWORD size, BYTE out[32])
{
    BYTE inner[64 + 128], outer[64 + 32];
    int i;

    memset(inner, 0x36, 64);
    memset(outer, 0x5C, 64);
    for (i = 0; i < 32; i++) {
        inner[i] ^= key[i];
        outer[i] ^= key[i];
    }
    memcpy(inner + 64, data, size);
    lab_hash(CALG_SHA_256, inner, 64 + size, outer + 64, 32);
    lab_hash(CALG_SHA_256, outer, sizeof outer, out, 32);
    SecureZeroMemory(inner, sizeof inner);
    SecureZeroMemory(outer, sizeof outer);
}

/* Reads the raw key and derives the AES key: one block of the counter mode. */
static DWORD derive(const wchar_t *name, BYTE out[32])
{
    static const wchar_t label[] = L"EncryptionLabel", context[] = L"EncryptionContext"; /* with their NULs */
    wchar_t data_folder[MAX_PATH], guid[64], prefix[33], path[MAX_PATH * 2];
    BYTE *file, message[4 + sizeof label + 1 + sizeof context + 4] = {0, 0, 0, 1}, *at = message + 4;
    DWORD size, error;

    if (!name || !*name || !lab_machine_guid(guid, 64))
        return BAD_KEYSET;
    lab_program_data(L"Microsoft\\Crypto\\Keys", data_folder, MAX_PATH);
    lab_key_prefix(name, TRUE, prefix);
    swprintf(path, MAX_PATH * 2, L"%ls\\%ls_%ls", data_folder, prefix, guid);
    error = lab_read_file(path, &file, &size);
    if (error)
        return error == ERROR_ACCESS_DENIED ? 0x80070005u : BAD_KEYSET;
    if (size != 40 || memcmp(file, "LABKDF1", 8)) {
        free(file);
        return BAD_KEY_STATE; /* what Windows says of a key file that it cannot open */
    }
    memcpy(at, label, sizeof label);
    at += sizeof label + 1;
    memcpy(at, context, sizeof context);
    at += sizeof context;
    at[2] = 1; /* 256 bits, big-endian */
    hmac_sha256(file + 8, message, sizeof message, out);
    SecureZeroMemory(file, size);
    free(file);
    return 0;
}

static DWORD import_key(const wchar_t *name, const BYTE *iv, HCRYPTPROV *provider, HCRYPTKEY *key)
{
    plain_key blob = {{PLAINTEXTKEYBLOB, CUR_BLOB_VERSION, 0, CALG_AES_256}, 32, {0}};
    DWORD status = derive(name, blob.key), mode = CRYPT_MODE_CBC;

    *provider = 0;
    *key = 0;
    if (!status
        && (!CryptAcquireContextW(provider, NULL, NULL, PROV_RSA_AES, CRYPT_VERIFYCONTEXT | CRYPT_SILENT)
            || !CryptImportKey(*provider, (BYTE *)&blob, sizeof blob, 0, 0, key)
            || !CryptSetKeyParam(*key, KP_MODE, (BYTE *)&mode, 0) || !CryptSetKeyParam(*key, KP_IV, iv, 0)))
        status = lab_hresult(GetLastError());
    SecureZeroMemory(&blob, sizeof blob);
    return status;
}

static void release(HCRYPTPROV provider, HCRYPTKEY key)
{
    if (key)
        CryptDestroyKey(key);
    if (provider)
        CryptReleaseContext(provider, 0);
}

/* Decrypts in place. *size: bytes of the value; afterwards bytes of the text with its 2-byte NUL. */
__declspec(dllexport) DWORD WINAPI IisCngDecrypt(const wchar_t *name, BYTE *data, DWORD *size)
{
    HCRYPTPROV provider;
    HCRYPTKEY key;
    BYTE field[32], *clear;
    DWORD count, status;

    if (!data || !size)
        return answer(0x80070057);
    if (*size < CIPHER + 16 || (*size - CIPHER) % 16)
        return answer(BAD_DATA);
    count = *size - CIPHER;
    clear = lab_alloc(count);
    memcpy(clear, data + CIPHER, count);
    status = import_key(name, data, &provider, &key);
    if (!status && !CryptDecrypt(key, 0, TRUE, 0, clear, &count))
        status = BAD_DATA;
    release(provider, key);
    if (!status && (count < 2 || count % 2 || clear[count - 1] || clear[count - 2]
                    || !lab_hash(CALG_SHA_256, clear, count - 2, field, 32) || memcmp(field, data + FIELD, 32)))
        status = BAD_DATA;
    if (!status) {
        memset(data, 0, *size);
        memcpy(data, clear, count);
        *size = count;
    }
    SecureZeroMemory(clear, count);
    free(clear);
    return answer(status);
}

/* With a NULL buffer *size receives the bytes that are needed. *size is output only, as its callers declare it. */
__declspec(dllexport) DWORD WINAPI IisCngEncrypt(const wchar_t *name, const wchar_t *text, BYTE *data, DWORD *size)
{
    HCRYPTPROV provider = 0;
    HCRYPTKEY key;
    DWORD clear, count, total, status;

    if (!text || !size)
        return answer(0x80070057);
    clear = (DWORD)((wcslen(text) + 1) * sizeof(wchar_t));
    total = CIPHER + (clear / 16 + 1) * 16;
    if (!data) {
        BYTE unused[32];
        status = derive(name, unused);
        SecureZeroMemory(unused, sizeof unused);
        *size = status ? 0 : total;
        return answer(status);
    }
    if (!CryptAcquireContextW(&provider, NULL, NULL, PROV_RSA_AES, CRYPT_VERIFYCONTEXT | CRYPT_SILENT)
        || !CryptGenRandom(provider, 16, data)) {
        status = lab_hresult(GetLastError());
        release(provider, 0);
        return answer(status);
    }
    release(provider, 0);
    status = import_key(name, data, &provider, &key);
    if (!status) {
        memcpy(data + CIPHER, text, clear);
        count = clear;
        if (!lab_hash(CALG_SHA_256, text, clear - 2, data + FIELD, 32)
            || !CryptEncrypt(key, 0, TRUE, 0, data + CIPHER, &count, total - CIPHER)) {
            status = lab_hresult(GetLastError());
            SecureZeroMemory(data, total);
        } else {
            *size = CIPHER + count;
        }
    }
    release(provider, key);
    return answer(status);
}
