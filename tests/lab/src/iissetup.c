/*
 * Copyright (c) 2026 the webfarm.iis authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Stand-in for IIS's setup, iissetup.exe /install SharedLibraries: it makes the key containers that are missing and leaves
 * the ones that are there, of which it writes the line that real setups write into iis.log (0x8009000f, already there).
 * Of the CNG keys it makes what the stand-in for cngkeyhelper.dll reads. It does not touch the configuration.
 *
 * Faults: iissetup (ms: takes that long; code: ends with it before anything is done), iissetup-after (code: ends with it
 * although everything is done), iissetup-without-keys (makes none and says that all is well), iissetup-config (rewrites
 * applicationHost.config with another line at its end, as a setup might).
 */
#include "lab.h"

static void log_line(const wchar_t *format, const wchar_t *name, DWORD code)
{
    wchar_t *line = lab_format(format, name, code);
    char *bytes = lab_utf8(line);
    DWORD done;
    HANDLE file = CreateFileW(L"C:\\windows\\iis.log", FILE_APPEND_DATA, FILE_SHARE_READ, NULL, OPEN_ALWAYS, 0, NULL);

    if (file != INVALID_HANDLE_VALUE) {
        WriteFile(file, bytes, (DWORD)strlen(bytes), &done, NULL);
        CloseHandle(file);
    }
    wprintf(L"%ls", line);
    free(bytes);
    free(line);
}

static void report(const wchar_t *name, DWORD code)
{
    if (code)
        log_line(L"Failed to create %ls key container (result=0x%08lx)\r\n", name, code);
    else
        log_line(L"Created %ls key container\r\n", name, 0);
}

static DWORD make_cng(const wchar_t *name)
{
    wchar_t folder[MAX_PATH], guid[64], prefix[33], path[MAX_PATH * 2];
    BYTE key[40] = "LABKDF1";
    HCRYPTPROV provider;
    DWORD error;

    if (!lab_machine_guid(guid, 64))
        return 0x80090016;
    lab_program_data(L"Microsoft\\Crypto\\Keys", folder, MAX_PATH);
    lab_make_folders(folder);
    lab_key_prefix(name, TRUE, prefix);
    swprintf(path, MAX_PATH * 2, L"%ls\\%ls_%ls", folder, prefix, guid);
    if (lab_exists(path))
        return 0x8009000f;
    if (!CryptAcquireContextW(&provider, NULL, NULL, PROV_RSA_AES, CRYPT_VERIFYCONTEXT | CRYPT_SILENT))
        return lab_hresult(GetLastError());
    CryptGenRandom(provider, 32, key + 8);
    CryptReleaseContext(provider, 0);
    error = lab_write_file(path, key, sizeof key);
    SecureZeroMemory(key, sizeof key);
    return error ? lab_hresult(error) : 0;
}

static DWORD make_cryptoapi(const wchar_t *name)
{
    HCRYPTPROV provider;
    HCRYPTKEY key;
    DWORD status = 0;

    if (!lab_container_open(name, &provider)) {
        CryptReleaseContext(provider, 0);
        return 0x8009000f;
    }
    if (!CryptAcquireContextW(&provider, name, NULL, PROV_RSA_AES, CRYPT_NEWKEYSET | CRYPT_MACHINE_KEYSET | CRYPT_SILENT))
        return lab_hresult(GetLastError());
    if (CryptGenKey(provider, AT_KEYEXCHANGE, 2048 << 16 | CRYPT_EXPORTABLE, &key))
        CryptDestroyKey(key);
    else
        status = lab_hresult(GetLastError());
    CryptReleaseContext(provider, 0);
    return status;
}

static void touch_configuration(void)
{
    static const char more[] = "\r\n<!-- setup was here -->\r\n";
    wchar_t folder[MAX_PATH], path[MAX_PATH * 2];
    BYTE *bytes, *longer;
    DWORD size;

    lab_config_folder(folder, MAX_PATH);
    swprintf(path, MAX_PATH * 2, L"%ls\\applicationHost.config", folder);
    if (lab_read_file(path, &bytes, &size))
        return;
    longer = lab_alloc(size + sizeof more);
    memcpy(longer, bytes, size);
    memcpy(longer + size, more, sizeof more - 1);
    lab_write_file(path, longer, size + (DWORD)sizeof more - 1);
    free(longer);
    free(bytes);
}

int wmain(int argc, wchar_t **argv)
{
    lab_fault fault;

    if (argc != 3 || _wcsicmp(argv[1], L"/install") || _wcsicmp(argv[2], L"SharedLibraries")) {
        wprintf(L"iissetup: only /install SharedLibraries is known here\r\n");
        return 87;
    }
    if (lab_fault_on(&fault, L"iissetup")) {
        Sleep(fault.ms);
        if (fault.code)
            return (int)fault.code;
    }
    if (!lab_fault_on(&fault, L"iissetup-without-keys")) {
        report(L"iisWasKey", make_cryptoapi(L"iisWasKey"));
        report(L"iisConfigurationKey", make_cryptoapi(L"iisConfigurationKey"));
        report(L"iisCngWasKey", make_cng(L"iisCngWasKey"));
        report(L"iisCngConfigurationKey", make_cng(L"iisCngConfigurationKey"));
    }
    if (lab_fault_on(&fault, L"iissetup-config"))
        touch_configuration();
    if (lab_fault_on(&fault, L"iissetup-after"))
        return (int)fault.code;
    return 0;
}
