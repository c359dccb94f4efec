// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// What _Configuration.cs needs of _KeyContainer.cs, without CryptoAPI: lets its parser run on Linux.

using System;

namespace ansible_collections.webfarm.iis.plugins.module_utils._KeyContainer
{
    public static class WebfarmKeyContainer
    {
        public static string Sha256(byte[] bytes)
        {
            using (System.Security.Cryptography.SHA256 hash = System.Security.Cryptography.SHA256.Create())
                return BitConverter.ToString(hash.ComputeHash(bytes)).Replace("-", "").ToLowerInvariant();
        }

        public static string FileSddl(string path) { throw new NotSupportedException(); }

        public static void SetFileSddl(string path, string sddl) { throw new NotSupportedException(); }
    }

    public class WebfarmCryptoException : Exception
    {
        public WebfarmCryptoException(uint code, string operation) : base(operation) { }

        public static uint LastCode() { return 0; }

        public static WebfarmCryptoException Last(string operation) { return new WebfarmCryptoException(0, operation); }
    }
}
