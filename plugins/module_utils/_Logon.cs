// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY
// The interfaces in this file are meant for use within the webfarm.iis collection
// and may change in any release, even a bugfix release.

// Reads files as another account does: the one that IIS will use, not the one of the connection. Tries whether an account logs on.

using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.InteropServices;
using System.Security;
using ansible_collections.webfarm.iis.plugins.module_utils._KeyContainer;

//TypeAccelerator -Name WebfarmLogon -TypeName WebfarmLogon

namespace ansible_collections.webfarm.iis.plugins.module_utils._Logon
{
    internal static class LogonNative
    {
        [DllImport("advapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool LogonUserW(string user, string domain, IntPtr password, int kind, int provider, out IntPtr token);

        [DllImport("advapi32.dll", SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool ImpersonateLoggedOnUser(IntPtr token);

        [DllImport("advapi32.dll", SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool RevertToSelf();

        [DllImport("kernel32.dll", SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool CloseHandle(IntPtr handle);
    }

    public static class WebfarmLogon
    {
        // As IIS logs on the user of a share: LOGON32_LOGON_NETWORK_CLEARTEXT. The token can go on to another server.
        private const int NetworkClearText = 8;
        // Only a proof of the password: nothing is cached, no profile is loaded.
        private const int Network = 3;

        /// <summary>
        /// A secret for a cmdlet; a method, because a cmdlet's arguments can be logged. null for nothing, which reaches a method as an empty text.
        /// </summary>
        public static SecureString Secure(string text)
        {
            if (String.IsNullOrEmpty(text)) return null;
            SecureString secure = new SecureString();
            foreach (char c in text) secure.AppendChar(c);
            secure.MakeReadOnly();
            return secure;
        }

        /// <summary>What a key-encryption password lacks, null when it is good enough.</summary>
        public static string Weakness(string password)
        {
            bool upper = false, lower = false, digit = false, other = false;
            foreach (char c in password)
            {
                if (Char.IsUpper(c)) upper = true;
                else if (Char.IsLower(c)) lower = true;
                else if (Char.IsDigit(c)) digit = true;
                else other = true;
            }
            List<string> missing = new List<string>();
            if (password.Length < 8) missing.Add("8 characters");
            if (!upper) missing.Add("an upper-case letter");
            if (!lower) missing.Add("a lower-case letter");
            if (!digit) missing.Add("a digit");
            if (!other) missing.Add("a symbol");
            return missing.Count == 0 ? null : String.Join(", ", missing.ToArray());
        }

        /// <summary>
        /// The content of files of a folder, null for one that is not there, read by that account; by this process where no account is given.
        /// </summary>
        public static byte[][] Read(string folder, string[] names, string user, SecureString password)
        {
            if (String.IsNullOrEmpty(user)) return ReadAll(folder, names);
            IntPtr token = LogOn(user, password);
            try
            {
                if (!LogonNative.ImpersonateLoggedOnUser(token)) throw WebfarmCryptoException.Last(String.Format("acting as '{0}'", user));
                try
                {
                    return ReadAll(folder, names);
                }
                finally
                {
                    // A thread that keeps the other identity must not go on.
                    if (!LogonNative.RevertToSelf()) Environment.FailFast("RevertToSelf failed");
                }
            }
            finally
            {
                LogonNative.CloseHandle(token);
            }
        }

        /// <summary>Tries the password of an account, once; 0, or the error of Windows.</summary>
        public static int Try(string user, SecureString password)
        {
            IntPtr token;
            int error = LogOn(user, password, Network, out token);
            if (error == 0) LogonNative.CloseHandle(token);
            return error;
        }

        /// <summary>
        /// What the error of a try says: ok (the password is right), refused (nobody can log on like this), unknown (it could not be tried).
        /// </summary>
        public static string Judge(int error)
        {
            switch (error)
            {
                case 0:
                case 1385: // the kind of logon is not granted; that is looked at behind the password
                    return "ok";
                case 1317: // no such user
                case 1326: // user name or password is wrong
                case 1327: // restriction of the account
                case 1328: // not at this time
                case 1329: // not on this computer
                case 1330: // the password has expired
                case 1331: // disabled
                case 1332: // no such name
                case 1793: // the account has expired
                case 1907: // the password must be changed first
                case 1909: // locked out
                    return "refused";
                default:
                    return "unknown";
            }
        }

        private static byte[][] ReadAll(string folder, string[] names)
        {
            byte[][] contents = new byte[names.Length][];
            for (int i = 0; i < names.Length; i++)
            {
                try
                {
                    contents[i] = File.ReadAllBytes(Path.Combine(folder, names[i]));
                }
                catch (FileNotFoundException)
                {
                    contents[i] = null;
                }
            }
            return contents;
        }

        private static IntPtr LogOn(string user, SecureString password)
        {
            IntPtr token;
            int error = LogOn(user, password, NetworkClearText, out token);
            if (error != 0) throw new WebfarmCryptoException(0x80070000 | (uint)error, String.Format("logging on '{0}'", user));
            return token;
        }

        private static int LogOn(string user, SecureString password, int kind, out IntPtr token)
        {
            int slash = user.IndexOf('\\');
            // A user principal name goes without a domain, a bare name is one of this computer.
            string domain = slash >= 0 ? user.Substring(0, slash) : user.IndexOf('@') >= 0 ? null : ".";
            IntPtr clear = Marshal.SecureStringToGlobalAllocUnicode(password ?? new SecureString());
            try
            {
                bool done = LogonNative.LogonUserW(user.Substring(slash + 1), domain, clear, kind, 0, out token);
                // Never 0 for a failure, whatever was left in between.
                int error = Marshal.GetLastWin32Error();
                return done ? 0 : error == 0 ? 1326 : error;
            }
            finally
            {
                Marshal.ZeroFreeGlobalAllocUnicode(clear);
            }
        }
    }
}
