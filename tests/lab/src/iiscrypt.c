/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * iiscrypt: makes and opens the protected values of an IIS configuration through CryptoAPI alone, the way IIS does.
 * It shares no code with the collection: it is the oracle that the collection is judged by.
 *
 * Usage: iiscrypt COMMAND ARGUMENTS, or "iiscrypt batch" with one command per line on standard input.
 *
 *   create NAME BITS exportable|nonexportable     new machine container with an AT_KEYEXCHANGE pair
 *   delete NAME                                   remove the container
 *   exists NAME                                   prints yes or no
 *   export NAME private|public                    prints the PRIVATEKEYBLOB or PUBLICKEYBLOB in base64
 *   import NAME exportable|nonexportable          reads a base64 PRIVATEKEYBLOB, makes the container when it is missing
 *   publickey NAME                                prints BITS MODULUS EXPONENT (big-endian hexadecimal)
 *   fingerprint NAME                              prints the SHA-256 of the DER SubjectPublicKeyInfo
 *   getsddl NAME | setsddl NAME SDDL              security descriptor of the container (PP_KEYSET_SEC_DESCR)
 *   sessionkey NAME [oaep] [192|256]              prints a fresh AES key wrapped for the container (SIMPLEBLOB, base64)
 *   unwrap NAME SESSIONKEY [oaep]                 prints ALGID KEY (hexadecimal) of a wrapped session key
 *   encrypt aes NAME SESSIONKEY [oaep]            reads UTF-8 text, prints the value in base64
 *   encrypt rsa NAME [nul] [prefix]               the same under the RSA key itself (little-endian block, PKCS #1 v1.5)
 *   encrypt cng CONTAINER                         the same through cngkeyhelper.dll!IisCngEncrypt
 *   decrypt aes NAME SESSIONKEY [oaep]            reads a base64 value, prints the text as UTF-8
 *   decrypt rsa NAME | decrypt cng CONTAINER      the same for the other two kinds
 *   rawdecrypt aes NAME SESSIONKEY [oaep]         prints the whole decrypted buffer in hexadecimal
 *   rawdecrypt rsa NAME                           prints the decrypted RSA block in hexadecimal
 *   rawencrypt aes NAME SESSIONKEY [oaep]         reads base64 bytes, encrypts exactly these (Final=TRUE)
 *
 * In batch mode a command that reads standard input takes it as its last argument instead: "@" and the base64 of the
 * bytes. Arguments are separated by tabs when the line holds a tab, else by spaces. Each line is answered by one line,
 * "OK RESULT" or "ERROR 0x........ OPERATION". Outside batch mode an error goes to standard error, exit code 1.
 */
#ifndef UNICODE
#define UNICODE
#endif
#define _WIN32_WINNT 0x0602
#include <windows.h>
#include <wincrypt.h>
#include <sddl.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#ifndef CRYPT_OAEP
#define CRYPT_OAEP 0x00000040
#endif

typedef struct {
    BYTE *data;
    DWORD size;
} bytes_t;

typedef DWORD(WINAPI *cng_encrypt_t)(LPCWSTR, LPCWSTR, BYTE *, DWORD *);
typedef DWORD(WINAPI *cng_decrypt_t)(LPCWSTR, BYTE *, DWORD *);

static const char *failed_operation;
static char *result;      /* the answer, UTF-8 or hexadecimal or base64 */
static size_t result_size;

static HRESULT fail_code(const char *operation, DWORD code) {
    failed_operation = operation;
    if (code == 0) {
        code = ERROR_INTERNAL_ERROR;
    }
    return HRESULT_FROM_WIN32(code);
}

static HRESULT fail_last(const char *operation) {
    return fail_code(operation, GetLastError());
}

static void *get_memory(size_t size) {
    void *memory = calloc(1, size ? size : 1);
    if (memory == NULL) {
        fputs("ERROR 0x8007000E out of memory\n", stderr);
        exit(3);
    }
    return memory;
}

static void set_result(const void *text, size_t size) {
    free(result);
    result = get_memory(size + 1);
    memcpy(result, text, size);
    result_size = size;
}

static void set_result_hex(const BYTE *data, DWORD size) {
    DWORD i;
    char *text = get_memory((size_t)size * 2 + 1);
    for (i = 0; i < size; i++) {
        sprintf(text + i * 2, "%02x", data[i]);
    }
    set_result(text, (size_t)size * 2);
    free(text);
}

static HRESULT set_result_base64(const BYTE *data, DWORD size) {
    DWORD length = 0;
    char *text;
    if (size == 0) {
        set_result("", 0);
        return S_OK;
    }
    if (!CryptBinaryToStringA(data, size, CRYPT_STRING_BASE64 | CRYPT_STRING_NOCRLF, NULL, &length)) {
        return fail_last("CryptBinaryToString");
    }
    text = get_memory(length + 1);
    if (!CryptBinaryToStringA(data, size, CRYPT_STRING_BASE64 | CRYPT_STRING_NOCRLF, text, &length)) {
        return fail_last("CryptBinaryToString");
    }
    /* Some implementations end the text with a line break in spite of NOCRLF. */
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r' || text[length - 1] == 0)) {
        length--;
    }
    set_result(text, length);
    free(text);
    return S_OK;
}

static HRESULT from_base64(const char *text, size_t length, bytes_t *out) {
    DWORD size = 0;
    while (length > 0 && strchr("\r\n \t", text[length - 1]) != NULL) {
        length--;
    }
    out->data = get_memory(length + 1);
    out->size = 0;
    if (length == 0) {
        return S_OK;
    }
    size = (DWORD)length;
    if (!CryptStringToBinaryA(text, (DWORD)length, CRYPT_STRING_BASE64, out->data, &size, NULL, NULL)) {
        return fail_last("CryptStringToBinary");
    }
    out->size = size;
    return S_OK;
}

static HRESULT wide_from_base64(const WCHAR *wide, bytes_t *out) {
    size_t i;
    size_t length = wcslen(wide);
    HRESULT hr;
    char *text = get_memory(length + 1);
    for (i = 0; i < length; i++) {
        text[i] = wide[i] < 128 ? (char)wide[i] : '?';
    }
    hr = from_base64(text, length, out);
    free(text);
    return hr;
}

static HRESULT utf16_from_utf8(const bytes_t *in, WCHAR **out, DWORD *characters) {
    int count;
    *out = get_memory(((size_t)in->size + 1) * sizeof(WCHAR));
    *characters = 0;
    if (in->size == 0) {
        return S_OK;
    }
    count = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, (const char *)in->data, (int)in->size, *out, (int)in->size);
    if (count <= 0) {
        return fail_last("MultiByteToWideChar");
    }
    *characters = (DWORD)count;
    return S_OK;
}

static HRESULT set_result_utf16(const BYTE *data, DWORD size) {
    int length;
    char *text;
    if (size % 2 != 0) {
        return fail_code("text of an odd length", ERROR_INVALID_DATA);
    }
    if (size == 0) {
        set_result("", 0);
        return S_OK;
    }
    length = WideCharToMultiByte(CP_UTF8, WC_ERR_INVALID_CHARS, (const WCHAR *)data, (int)(size / 2), NULL, 0, NULL, NULL);
    if (length <= 0) {
        return fail_code("text that is not UTF-16", ERROR_INVALID_DATA);
    }
    text = get_memory((size_t)length + 1);
    WideCharToMultiByte(CP_UTF8, 0, (const WCHAR *)data, (int)(size / 2), text, length, NULL, NULL);
    set_result(text, (size_t)length);
    free(text);
    return S_OK;
}

/* Opens an existing machine container; never creates one. */
static HRESULT open_container(const WCHAR *name, HCRYPTPROV *provider) {
    if (!CryptAcquireContextW(provider, name, NULL, PROV_RSA_AES, CRYPT_MACHINE_KEYSET | CRYPT_SILENT)) {
        return fail_last("CryptAcquireContext");
    }
    return S_OK;
}

static HRESULT open_key(const WCHAR *name, HCRYPTPROV *provider, HCRYPTKEY *key) {
    HRESULT hr = open_container(name, provider);
    if (FAILED(hr)) {
        return hr;
    }
    if (!CryptGetUserKey(*provider, AT_KEYEXCHANGE, key)) {
        hr = fail_last("CryptGetUserKey");
        CryptReleaseContext(*provider, 0);
        return hr;
    }
    return S_OK;
}

static void close_key(HCRYPTPROV provider, HCRYPTKEY key) {
    CryptDestroyKey(key);
    CryptReleaseContext(provider, 0);
}

static HRESULT export_blob(HCRYPTKEY key, DWORD type, bytes_t *out) {
    out->size = 0;
    if (!CryptExportKey(key, 0, type, 0, NULL, &out->size)) {
        return fail_last("CryptExportKey");
    }
    out->data = get_memory(out->size);
    if (!CryptExportKey(key, 0, type, 0, out->data, &out->size)) {
        return fail_last("CryptExportKey");
    }
    return S_OK;
}

static HRESULT command_create(const WCHAR *name, DWORD bits, int exportable) {
    HCRYPTPROV provider;
    HCRYPTKEY key;
    HRESULT hr = S_OK;
    if (!CryptAcquireContextW(&provider, name, NULL, PROV_RSA_AES, CRYPT_MACHINE_KEYSET | CRYPT_SILENT | CRYPT_NEWKEYSET)) {
        return fail_last("CryptAcquireContext");
    }
    if (!CryptGenKey(provider, AT_KEYEXCHANGE, (bits << 16) | (exportable ? CRYPT_EXPORTABLE : 0), &key)) {
        hr = fail_last("CryptGenKey");
    } else {
        CryptDestroyKey(key);
    }
    CryptReleaseContext(provider, 0);
    set_result("created", 7);
    return hr;
}

static HRESULT command_delete(const WCHAR *name) {
    HCRYPTPROV provider;
    if (!CryptAcquireContextW(&provider, name, NULL, PROV_RSA_AES,
                              CRYPT_MACHINE_KEYSET | CRYPT_SILENT | CRYPT_DELETEKEYSET)) {
        return fail_last("CryptAcquireContext");
    }
    set_result("deleted", 7);
    return S_OK;
}

static HRESULT command_exists(const WCHAR *name) {
    HCRYPTPROV provider;
    HRESULT hr = open_container(name, &provider);
    if (hr == NTE_BAD_KEYSET) {
        set_result("no", 2);
        return S_OK;
    }
    if (FAILED(hr)) {
        return hr;
    }
    CryptReleaseContext(provider, 0);
    set_result("yes", 3);
    return S_OK;
}

static HRESULT command_export(const WCHAR *name, int private_key) {
    HCRYPTPROV provider;
    HCRYPTKEY key;
    bytes_t blob = {NULL, 0};
    HRESULT hr = open_key(name, &provider, &key);
    if (FAILED(hr)) {
        return hr;
    }
    hr = export_blob(key, private_key ? PRIVATEKEYBLOB : PUBLICKEYBLOB, &blob);
    if (SUCCEEDED(hr)) {
        hr = set_result_base64(blob.data, blob.size);
    }
    close_key(provider, key);
    free(blob.data);
    return hr;
}

static HRESULT command_import(const WCHAR *name, int exportable, const bytes_t *input) {
    HCRYPTPROV provider;
    HCRYPTKEY key;
    bytes_t blob = {NULL, 0};
    HRESULT hr = from_base64((const char *)input->data, input->size, &blob);
    if (FAILED(hr)) {
        return hr;
    }
    if (!CryptAcquireContextW(&provider, name, NULL, PROV_RSA_AES, CRYPT_MACHINE_KEYSET | CRYPT_SILENT)) {
        if ((HRESULT)GetLastError() != NTE_BAD_KEYSET) {
            return fail_last("CryptAcquireContext");
        }
        if (!CryptAcquireContextW(&provider, name, NULL, PROV_RSA_AES,
                                  CRYPT_MACHINE_KEYSET | CRYPT_SILENT | CRYPT_NEWKEYSET)) {
            return fail_last("CryptAcquireContext");
        }
    }
    if (!CryptImportKey(provider, blob.data, blob.size, 0, exportable ? CRYPT_EXPORTABLE : 0, &key)) {
        hr = fail_last("CryptImportKey");
    } else {
        CryptDestroyKey(key);
        set_result("imported", 8);
    }
    CryptReleaseContext(provider, 0);
    SecureZeroMemory(blob.data, blob.size);
    free(blob.data);
    return hr;
}

static HRESULT command_publickey(const WCHAR *name) {
    HCRYPTPROV provider;
    HCRYPTKEY key;
    bytes_t blob = {NULL, 0};
    HRESULT hr = open_key(name, &provider, &key);
    if (FAILED(hr)) {
        return hr;
    }
    hr = export_blob(key, PUBLICKEYBLOB, &blob);
    if (SUCCEEDED(hr)) {
        /* PUBLICKEYSTRUC (8 bytes), RSAPUBKEY (magic, bits, exponent), modulus little-endian */
        DWORD bits;
        DWORD exponent;
        DWORD i;
        char *text = get_memory((size_t)blob.size * 2 + 64);
        char *end = text;
        memcpy(&bits, blob.data + 12, 4);
        memcpy(&exponent, blob.data + 16, 4);
        end += sprintf(end, "%lu ", (unsigned long)bits);
        for (i = bits / 8; i > 0; i--) {
            end += sprintf(end, "%02x", blob.data[20 + i - 1]);
        }
        sprintf(end, " %06lx", (unsigned long)exponent);
        set_result(text, strlen(text));
        free(text);
    }
    close_key(provider, key);
    free(blob.data);
    return hr;
}

static HRESULT command_fingerprint(const WCHAR *name) {
    HCRYPTPROV provider;
    HCRYPTPROV hasher = 0;
    HCRYPTHASH hash = 0;
    CERT_PUBLIC_KEY_INFO *info = NULL;
    BYTE *encoded = NULL;
    BYTE digest[32];
    DWORD size = 0;
    DWORD digest_size = sizeof(digest);
    HRESULT hr = open_container(name, &provider);
    if (FAILED(hr)) {
        return hr;
    }
    if (!CryptExportPublicKeyInfo(provider, AT_KEYEXCHANGE, X509_ASN_ENCODING, NULL, &size)) {
        hr = fail_last("CryptExportPublicKeyInfo");
        goto done;
    }
    info = get_memory(size);
    if (!CryptExportPublicKeyInfo(provider, AT_KEYEXCHANGE, X509_ASN_ENCODING, info, &size)) {
        hr = fail_last("CryptExportPublicKeyInfo");
        goto done;
    }
    size = 0;
    if (!CryptEncodeObject(X509_ASN_ENCODING, X509_PUBLIC_KEY_INFO, info, NULL, &size)) {
        hr = fail_last("CryptEncodeObject");
        goto done;
    }
    encoded = get_memory(size);
    if (!CryptEncodeObject(X509_ASN_ENCODING, X509_PUBLIC_KEY_INFO, info, encoded, &size)) {
        hr = fail_last("CryptEncodeObject");
        goto done;
    }
    if (!CryptAcquireContextW(&hasher, NULL, NULL, PROV_RSA_AES, CRYPT_VERIFYCONTEXT | CRYPT_SILENT) ||
        !CryptCreateHash(hasher, CALG_SHA_256, 0, 0, &hash) || !CryptHashData(hash, encoded, size, 0) ||
        !CryptGetHashParam(hash, HP_HASHVAL, digest, &digest_size, 0)) {
        hr = fail_last("CryptHashData");
        goto done;
    }
    set_result_hex(digest, digest_size);
done:
    if (hash) {
        CryptDestroyHash(hash);
    }
    if (hasher) {
        CryptReleaseContext(hasher, 0);
    }
    CryptReleaseContext(provider, 0);
    free(info);
    free(encoded);
    return hr;
}

/* Wine opens the container's registry key for the system ACL as well, which needs this privilege. */
static void enable_security_privilege(void) {
    HANDLE token;
    TOKEN_PRIVILEGES wanted;
    if (!OpenProcessToken(GetCurrentProcess(), TOKEN_ADJUST_PRIVILEGES | TOKEN_QUERY, &token)) {
        return;
    }
    wanted.PrivilegeCount = 1;
    wanted.Privileges[0].Attributes = SE_PRIVILEGE_ENABLED;
    if (LookupPrivilegeValueW(NULL, SE_SECURITY_NAME, &wanted.Privileges[0].Luid)) {
        AdjustTokenPrivileges(token, FALSE, &wanted, 0, NULL, NULL);
    }
    CloseHandle(token);
}

static HRESULT command_getsddl(const WCHAR *name) {
    HCRYPTPROV provider;
    DWORD size = 0;
    BYTE *descriptor = NULL;
    LPWSTR text = NULL;
    const DWORD parts = DACL_SECURITY_INFORMATION;
    HRESULT hr = open_container(name, &provider);
    if (FAILED(hr)) {
        return hr;
    }
    if (!CryptGetProvParam(provider, PP_KEYSET_SEC_DESCR, NULL, &size, parts)) {
        hr = fail_last("CryptGetProvParam");
    } else {
        descriptor = get_memory(size);
        if (!CryptGetProvParam(provider, PP_KEYSET_SEC_DESCR, descriptor, &size, parts)) {
            hr = fail_last("CryptGetProvParam");
        } else if (!ConvertSecurityDescriptorToStringSecurityDescriptorW(descriptor, SDDL_REVISION_1, parts, &text, NULL)) {
            hr = fail_last("ConvertSecurityDescriptorToStringSecurityDescriptor");
        } else {
            hr = set_result_utf16((const BYTE *)text, (DWORD)(wcslen(text) * sizeof(WCHAR)));
            LocalFree(text);
        }
    }
    free(descriptor);
    CryptReleaseContext(provider, 0);
    return hr;
}

static HRESULT command_setsddl(const WCHAR *name, const WCHAR *sddl) {
    HCRYPTPROV provider;
    PSECURITY_DESCRIPTOR descriptor = NULL;
    HRESULT hr = open_container(name, &provider);
    if (FAILED(hr)) {
        return hr;
    }
    enable_security_privilege();
    if (!ConvertStringSecurityDescriptorToSecurityDescriptorW(sddl, SDDL_REVISION_1, &descriptor, NULL)) {
        hr = fail_last("ConvertStringSecurityDescriptorToSecurityDescriptor");
    } else if (!CryptSetProvParam(provider, PP_KEYSET_SEC_DESCR, (BYTE *)descriptor, DACL_SECURITY_INFORMATION)) {
        hr = fail_last("CryptSetProvParam");
    } else {
        set_result("set", 3);
    }
    if (descriptor) {
        LocalFree(descriptor);
    }
    CryptReleaseContext(provider, 0);
    return hr;
}

static HRESULT command_sessionkey(const WCHAR *name, int oaep, DWORD bits) {
    static const BYTE header[8] = {PRIVATEKEYBLOB, 2, 0, 0, 0, 0, 0, 0};
    HCRYPTPROV provider;
    HCRYPTKEY key;
    HRESULT hr;
    DWORD key_size = bits / 8;
    DWORD modulus_bits = 0;
    DWORD size = sizeof(modulus_bits);
    BYTE *blob = NULL;
    DWORD block_size = key_size;
    ALG_ID algorithm = bits == 256 ? CALG_AES_256 : bits == 192 ? CALG_AES_192 : CALG_AES_128;
    ALG_ID exchange = CALG_RSA_KEYX;

    hr = open_key(name, &provider, &key);
    if (FAILED(hr)) {
        return hr;
    }
    if (!CryptGetKeyParam(key, KP_KEYLEN, (BYTE *)&modulus_bits, &size, 0)) {
        hr = fail_last("CryptGetKeyParam");
        goto done;
    }
    /*
     * The SIMPLEBLOB is written field by field and its block made by CryptEncrypt under the RSA key: that is what
     * CryptExportKey stores, and it works for CRYPT_OAEP where Wine's CryptExportKey does not know the flag.
     */
    blob = get_memory(12 + modulus_bits / 8);
    memcpy(blob, header, sizeof(header));
    blob[0] = SIMPLEBLOB;
    memcpy(blob + 4, &algorithm, 4);
    memcpy(blob + 8, &exchange, 4);
    if (!CryptGenRandom(provider, key_size, blob + 12)) {
        hr = fail_last("CryptGenRandom");
        goto done;
    }
    if (!CryptEncrypt(key, 0, TRUE, oaep ? CRYPT_OAEP : 0, blob + 12, &block_size, modulus_bits / 8)) {
        hr = fail_last("CryptEncrypt");
        goto done;
    }
    hr = set_result_base64(blob, 12 + block_size);
done:
    close_key(provider, key);
    free(blob);
    return hr;
}

/*
 * Wine's CryptImportKey ignores CRYPT_OAEP, so the block is opened by CryptDecrypt and the key imported as
 * PLAINTEXTKEYBLOB. Windows does the same work inside CryptImportKey.
 */
static HRESULT import_session_key_oaep(HCRYPTPROV provider, HCRYPTKEY key, const bytes_t *blob, DWORD flags,
                                       HCRYPTKEY *session) {
    HRESULT hr = S_OK;
    BYTE *plain;
    BYTE *block;
    DWORD size;
    if (blob->size <= 12) {
        return fail_code("CryptImportKey", (DWORD)NTE_BAD_DATA);
    }
    size = blob->size - 12;
    block = get_memory(size);
    plain = get_memory(size + 12);
    memcpy(block, blob->data + 12, size);
    if (!CryptDecrypt(key, 0, TRUE, CRYPT_OAEP, block, &size)) {
        hr = fail_last("CryptDecrypt");
    } else {
        plain[0] = PLAINTEXTKEYBLOB;
        plain[1] = 2;
        memcpy(plain + 4, blob->data + 4, 4);
        memcpy(plain + 8, &size, 4);
        memcpy(plain + 12, block, size);
        if (!CryptImportKey(provider, plain, size + 12, 0, flags, session)) {
            hr = fail_last("CryptImportKey");
        }
    }
    SecureZeroMemory(block, blob->size - 12);
    SecureZeroMemory(plain, blob->size);
    free(block);
    free(plain);
    return hr;
}

static HRESULT import_session_key(const WCHAR *name, const WCHAR *wrapped, int oaep, DWORD flags, HCRYPTPROV *provider,
                                  HCRYPTKEY *session) {
    HCRYPTKEY key;
    bytes_t blob = {NULL, 0};
    HRESULT hr = wide_from_base64(wrapped, &blob);
    if (FAILED(hr)) {
        return hr;
    }
    hr = open_key(name, provider, &key);
    if (FAILED(hr)) {
        free(blob.data);
        return hr;
    }
    if (oaep) {
        hr = import_session_key_oaep(*provider, key, &blob, flags, session);
    } else if (!CryptImportKey(*provider, blob.data, blob.size, key, flags, session)) {
        hr = fail_last("CryptImportKey");
    }
    if (FAILED(hr)) {
        CryptReleaseContext(*provider, 0);
    }
    CryptDestroyKey(key);
    free(blob.data);
    return hr;
}

static HRESULT command_unwrap(const WCHAR *name, const WCHAR *wrapped, int oaep) {
    HCRYPTPROV provider;
    HCRYPTKEY session;
    bytes_t blob = {NULL, 0};
    HRESULT hr = import_session_key(name, wrapped, oaep, CRYPT_EXPORTABLE, &provider, &session);
    if (FAILED(hr)) {
        return hr;
    }
    hr = export_blob(session, PLAINTEXTKEYBLOB, &blob);
    if (SUCCEEDED(hr)) {
        /* BLOBHEADER (8 bytes, algorithm at 4), key size (4 bytes), key */
        ALG_ID algorithm;
        char *text;
        size_t length;
        memcpy(&algorithm, blob.data + 4, 4);
        set_result_hex(blob.data + 12, blob.size - 12);
        length = result_size + 6;
        text = get_memory(length + 1);
        sprintf(text, "%04x %s", algorithm, result);
        set_result(text, strlen(text));
        free(text);
    }
    close_key(provider, session);
    free(blob.data);
    return hr;
}

static HRESULT aes_encrypt(const WCHAR *name, const WCHAR *wrapped, int oaep, BYTE *buffer, DWORD size, DWORD room) {
    HCRYPTPROV provider;
    HCRYPTKEY session;
    HRESULT hr = import_session_key(name, wrapped, oaep, 0, &provider, &session);
    if (FAILED(hr)) {
        return hr;
    }
    if (!CryptEncrypt(session, 0, TRUE, 0, buffer, &size, room)) {
        hr = fail_last("CryptEncrypt");
    } else {
        hr = set_result_base64(buffer, size);
    }
    close_key(provider, session);
    return hr;
}

/* 4 random bytes, the text, 00 00, 0 to 15 random bytes; zero IV, CBC, PKCS padding by CryptEncrypt. */
static HRESULT command_encrypt_aes(const WCHAR *name, const WCHAR *wrapped, int oaep, const bytes_t *input) {
    HCRYPTPROV random;
    WCHAR *text;
    DWORD characters;
    DWORD size;
    BYTE *buffer;
    BYTE r;
    HRESULT hr = utf16_from_utf8(input, &text, &characters);
    if (FAILED(hr)) {
        return hr;
    }
    buffer = get_memory((size_t)characters * 2 + 64);
    if (!CryptAcquireContextW(&random, NULL, NULL, PROV_RSA_AES, CRYPT_VERIFYCONTEXT | CRYPT_SILENT)) {
        return fail_last("CryptAcquireContext");
    }
    if (!CryptGenRandom(random, 4, buffer) || !CryptGenRandom(random, 1, &r)) {
        return fail_last("CryptGenRandom");
    }
    memcpy(buffer + 4, text, (size_t)characters * 2);
    size = 4 + characters * 2 + 2;
    r %= 16;
    if (r > 0 && !CryptGenRandom(random, r, buffer + size)) {
        return fail_last("CryptGenRandom");
    }
    size += r;
    CryptReleaseContext(random, 0);
    hr = aes_encrypt(name, wrapped, oaep, buffer, size, characters * 2 + 64);
    free(buffer);
    free(text);
    return hr;
}

static HRESULT command_rawencrypt_aes(const WCHAR *name, const WCHAR *wrapped, int oaep, const bytes_t *input) {
    bytes_t data = {NULL, 0};
    BYTE *buffer;
    HRESULT hr = from_base64((const char *)input->data, input->size, &data);
    if (FAILED(hr)) {
        return hr;
    }
    buffer = get_memory(data.size + 32);
    memcpy(buffer, data.data, data.size);
    hr = aes_encrypt(name, wrapped, oaep, buffer, data.size, data.size + 32);
    free(buffer);
    free(data.data);
    return hr;
}

static HRESULT command_decrypt_aes(const WCHAR *name, const WCHAR *wrapped, int oaep, const bytes_t *input, int raw) {
    HCRYPTPROV provider;
    HCRYPTKEY session;
    bytes_t data = {NULL, 0};
    HRESULT hr = from_base64((const char *)input->data, input->size, &data);
    if (FAILED(hr)) {
        return hr;
    }
    hr = import_session_key(name, wrapped, oaep, 0, &provider, &session);
    if (FAILED(hr)) {
        free(data.data);
        return hr;
    }
    if (data.size == 0 || data.size % 16 != 0) {
        hr = fail_code("CryptDecrypt", (DWORD)NTE_BAD_DATA);
    } else if (!CryptDecrypt(session, 0, FALSE, 0, data.data, &data.size)) {
        hr = fail_last("CryptDecrypt");
    } else if (raw) {
        set_result_hex(data.data, data.size);
    } else {
        DWORD end = 4;
        while (end + 1 < data.size && (data.data[end] != 0 || data.data[end + 1] != 0)) {
            end += 2;
        }
        if (end + 1 >= data.size) {
            hr = fail_code("text without an end", ERROR_INVALID_DATA);
        } else {
            hr = set_result_utf16(data.data + 4, end - 4);
        }
    }
    close_key(provider, session);
    free(data.data);
    return hr;
}

/* One PKCS #1 v1.5 block in CryptoAPI's byte order; "nul" appends 00 00, "prefix" puts 4 random bytes in front. */
static HRESULT command_encrypt_rsa(const WCHAR *name, int nul, int prefix, const bytes_t *input) {
    HCRYPTPROV provider;
    HCRYPTKEY key;
    WCHAR *text;
    DWORD characters;
    DWORD bits = 0;
    DWORD size = sizeof(bits);
    DWORD used = 0;
    BYTE *buffer;
    HRESULT hr = utf16_from_utf8(input, &text, &characters);
    if (FAILED(hr)) {
        return hr;
    }
    hr = open_key(name, &provider, &key);
    if (FAILED(hr)) {
        free(text);
        return hr;
    }
    if (!CryptGetKeyParam(key, KP_KEYLEN, (BYTE *)&bits, &size, 0)) {
        hr = fail_last("CryptGetKeyParam");
        close_key(provider, key);
        free(text);
        return hr;
    }
    buffer = get_memory((size_t)characters * 2 + 16 + bits / 8);
    if (prefix) {
        CryptGenRandom(provider, 4, buffer);
        used = 4;
    }
    memcpy(buffer + used, text, (size_t)characters * 2);
    used += characters * 2;
    if (nul) {
        used += 2;
    }
    if (!CryptEncrypt(key, 0, TRUE, 0, buffer, &used, characters * 2 + 16 + bits / 8)) {
        hr = fail_last("CryptEncrypt");
    } else {
        hr = set_result_base64(buffer, used);
    }
    close_key(provider, key);
    free(buffer);
    free(text);
    return hr;
}

static HRESULT command_decrypt_rsa(const WCHAR *name, const bytes_t *input, int raw) {
    HCRYPTPROV provider;
    HCRYPTKEY key;
    bytes_t data = {NULL, 0};
    HRESULT hr = from_base64((const char *)input->data, input->size, &data);
    if (FAILED(hr)) {
        return hr;
    }
    hr = open_key(name, &provider, &key);
    if (FAILED(hr)) {
        free(data.data);
        return hr;
    }
    if (!CryptDecrypt(key, 0, TRUE, 0, data.data, &data.size)) {
        hr = fail_last("CryptDecrypt");
    } else if (raw) {
        set_result_hex(data.data, data.size);
    } else {
        DWORD size = data.size;
        if (size >= 2 && data.data[size - 1] == 0 && data.data[size - 2] == 0) {
            size -= 2;
        }
        hr = set_result_utf16(data.data, size);
    }
    close_key(provider, key);
    free(data.data);
    return hr;
}

static HRESULT find_cng(const char *function, FARPROC *address) {
    static HMODULE library;
    if (library == NULL) {
        library = LoadLibraryW(L"cngkeyhelper.dll");
    }
    if (library == NULL) {
        return fail_last("LoadLibrary cngkeyhelper.dll");
    }
    *address = GetProcAddress(library, function);
    if (*address == NULL) {
        return fail_last(function);
    }
    return S_OK;
}

static HRESULT command_encrypt_cng(const WCHAR *container, const bytes_t *input) {
    FARPROC address;
    cng_encrypt_t encrypt;
    WCHAR *text;
    DWORD characters;
    DWORD size = 0;
    DWORD status;
    BYTE *buffer;
    HRESULT hr = find_cng("IisCngEncrypt", &address);
    if (FAILED(hr)) {
        return hr;
    }
    encrypt = (cng_encrypt_t)(void *)address;
    hr = utf16_from_utf8(input, &text, &characters);
    if (FAILED(hr)) {
        return hr;
    }
    status = encrypt(container, text, NULL, &size);
    if (status != 0) {
        free(text);
        return fail_code("IisCngEncrypt", status);
    }
    buffer = get_memory(size);
    status = encrypt(container, text, buffer, &size);
    if (status != 0) {
        hr = fail_code("IisCngEncrypt", status);
    } else {
        hr = set_result_base64(buffer, size);
    }
    free(buffer);
    free(text);
    return hr;
}

static HRESULT command_decrypt_cng(const WCHAR *container, const bytes_t *input) {
    FARPROC address;
    cng_decrypt_t decrypt;
    bytes_t data = {NULL, 0};
    DWORD size;
    DWORD status;
    HRESULT hr = find_cng("IisCngDecrypt", &address);
    if (FAILED(hr)) {
        return hr;
    }
    decrypt = (cng_decrypt_t)(void *)address;
    hr = from_base64((const char *)input->data, input->size, &data);
    if (FAILED(hr)) {
        return hr;
    }
    size = data.size;
    status = decrypt(container, data.data, &size);
    if (status != 0) {
        hr = fail_code("IisCngDecrypt", status);
    } else if (size < 2 || size > data.size) {
        hr = fail_code("IisCngDecrypt size", ERROR_INVALID_DATA);
    } else {
        hr = set_result_utf16(data.data, size - 2);
    }
    free(data.data);
    return hr;
}

/* --- arguments ------------------------------------------------------------------------------------------------ */

static int has_word(int count, WCHAR **words, int from, const WCHAR *word) {
    int i;
    for (i = from; i < count; i++) {
        if (_wcsicmp(words[i], word) == 0) {
            return 1;
        }
    }
    return 0;
}

static int is_command(int count, WCHAR **words, const WCHAR *name, int needed) {
    return count >= needed && _wcsicmp(words[0], name) == 0;
}

static int is_pair(int count, WCHAR **words, const WCHAR *name, const WCHAR *kind, int needed) {
    return count >= needed && _wcsicmp(words[0], name) == 0 && _wcsicmp(words[1], kind) == 0;
}

static int read_standard_input(bytes_t *out) {
    size_t room = 4096;
    out->size = 0;
    out->data = get_memory(room + 1);
    for (;;) {
        size_t got = fread(out->data + out->size, 1, room - out->size, stdin);
        if (got == 0) {
            break;
        }
        out->size += (DWORD)got;
        if (out->size == room) {
            BYTE *larger = get_memory(room * 2 + 1);
            memcpy(larger, out->data, out->size);
            free(out->data);
            out->data = larger;
            room *= 2;
        }
    }
    return 1;
}

static int reads_input(int count, WCHAR **words) {
    return count > 0 && (_wcsicmp(words[0], L"import") == 0 || _wcsicmp(words[0], L"encrypt") == 0 ||
                         _wcsicmp(words[0], L"decrypt") == 0 || _wcsicmp(words[0], L"rawdecrypt") == 0 ||
                         _wcsicmp(words[0], L"rawencrypt") == 0);
}

static HRESULT dispatch(int count, WCHAR **words, const bytes_t *input) {
    if (is_command(count, words, L"create", 4)) {
        return command_create(words[1], (DWORD)_wtoi(words[2]), has_word(count, words, 3, L"exportable"));
    }
    if (is_command(count, words, L"delete", 2)) {
        return command_delete(words[1]);
    }
    if (is_command(count, words, L"exists", 2)) {
        return command_exists(words[1]);
    }
    if (is_command(count, words, L"export", 3)) {
        return command_export(words[1], has_word(count, words, 2, L"private"));
    }
    if (is_command(count, words, L"import", 3)) {
        return command_import(words[1], has_word(count, words, 2, L"exportable"), input);
    }
    if (is_command(count, words, L"publickey", 2)) {
        return command_publickey(words[1]);
    }
    if (is_command(count, words, L"fingerprint", 2)) {
        return command_fingerprint(words[1]);
    }
    if (is_command(count, words, L"getsddl", 2)) {
        return command_getsddl(words[1]);
    }
    if (is_command(count, words, L"setsddl", 3)) {
        return command_setsddl(words[1], words[2]);
    }
    if (is_command(count, words, L"sessionkey", 2)) {
        DWORD bits = has_word(count, words, 2, L"256") ? 256 : has_word(count, words, 2, L"192") ? 192 : 128;
        return command_sessionkey(words[1], has_word(count, words, 2, L"oaep"), bits);
    }
    if (is_command(count, words, L"unwrap", 3)) {
        return command_unwrap(words[1], words[2], has_word(count, words, 3, L"oaep"));
    }
    if (is_pair(count, words, L"encrypt", L"aes", 4)) {
        return command_encrypt_aes(words[2], words[3], has_word(count, words, 4, L"oaep"), input);
    }
    if (is_pair(count, words, L"rawencrypt", L"aes", 4)) {
        return command_rawencrypt_aes(words[2], words[3], has_word(count, words, 4, L"oaep"), input);
    }
    if (is_pair(count, words, L"encrypt", L"rsa", 3)) {
        return command_encrypt_rsa(words[2], has_word(count, words, 3, L"nul"), has_word(count, words, 3, L"prefix"), input);
    }
    if (is_pair(count, words, L"encrypt", L"cng", 3)) {
        return command_encrypt_cng(words[2], input);
    }
    if (is_pair(count, words, L"decrypt", L"aes", 4)) {
        return command_decrypt_aes(words[2], words[3], has_word(count, words, 4, L"oaep"), input, 0);
    }
    if (is_pair(count, words, L"rawdecrypt", L"aes", 4)) {
        return command_decrypt_aes(words[2], words[3], has_word(count, words, 4, L"oaep"), input, 1);
    }
    if (is_pair(count, words, L"decrypt", L"rsa", 3)) {
        return command_decrypt_rsa(words[2], input, 0);
    }
    if (is_pair(count, words, L"rawdecrypt", L"rsa", 3)) {
        return command_decrypt_rsa(words[2], input, 1);
    }
    if (is_pair(count, words, L"decrypt", L"cng", 3)) {
        return command_decrypt_cng(words[2], input);
    }
    return fail_code("unknown command or missing argument", ERROR_INVALID_PARAMETER);
}

static int run_batch(void) {
    bytes_t all;
    char *line;
    int failures = 0;
    read_standard_input(&all);
    all.data[all.size] = 0;
    line = (char *)all.data;
    while (line != NULL && *line) {
        WCHAR *words[16];
        int count = 0;
        char *next = strchr(line, '\n');
        const char *separator;
        char *word;
        bytes_t input = {NULL, 0};
        int has_input = 0;
        HRESULT hr = S_OK;
        int i;
        if (next != NULL) {
            *next++ = 0;
        }
        line[strcspn(line, "\r")] = 0;
        separator = strchr(line, '\t') != NULL ? "\t" : " ";
        for (word = strtok(line, separator); word != NULL && count < 16; word = strtok(NULL, separator)) {
            if (word[0] == '@') {
                free(input.data);
                hr = from_base64(word + 1, strlen(word + 1), &input);
                has_input = 1;
                continue;
            }
            {
                int length = (int)strlen(word) + 1;
                words[count] = get_memory((size_t)length * sizeof(WCHAR));
                MultiByteToWideChar(CP_UTF8, 0, word, -1, words[count], length);
                count++;
            }
        }
        line = next;
        if (count == 0) {
            continue;
        }
        failed_operation = "";
        set_result("", 0);
        if (SUCCEEDED(hr) && reads_input(count, words) && !has_input) {
            hr = fail_code("the last argument @BASE64 is missing", ERROR_INVALID_PARAMETER);
        }
        if (SUCCEEDED(hr)) {
            hr = dispatch(count, words, &input);
        }
        if (FAILED(hr)) {
            failures++;
            printf("ERROR 0x%08lX %s\n", (unsigned long)hr, failed_operation);
        } else {
            printf("OK ");
            fwrite(result, 1, result_size, stdout);
            printf("\n");
        }
        fflush(stdout);
        free(input.data);
        for (i = 0; i < count; i++) {
            free(words[i]);
        }
    }
    return failures ? 1 : 0;
}

int wmain(int argc, WCHAR **argv) {
    bytes_t input = {NULL, 0};
    HRESULT hr;
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
    failed_operation = "";
    if (argc == 2 && _wcsicmp(argv[1], L"batch") == 0) {
        return run_batch();
    }
    if (argc < 2) {
        fputs("usage: iiscrypt COMMAND ARGUMENTS (see the head of iiscrypt.c)\n", stderr);
        return 2;
    }
    set_result("", 0);
    if (reads_input(argc - 1, argv + 1)) {
        read_standard_input(&input);
    }
    hr = dispatch(argc - 1, argv + 1, &input);
    free(input.data);
    if (FAILED(hr)) {
        fprintf(stderr, "ERROR 0x%08lX %s\n", (unsigned long)hr, failed_operation);
        return 1;
    }
    fwrite(result, 1, result_size, stdout);
    printf("\n");
    return 0;
}
