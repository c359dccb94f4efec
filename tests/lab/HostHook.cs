using System;
using System.Collections.Generic;
using System.IO;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

/// <summary>
/// What a member of a domain with IIS answers and Wine 8.0 does not. Loaded as a start-up hook (DOTNET_STARTUP_HOOKS) into the
/// PowerShell of a simulated host; does nothing on Windows.
///  1. LookupAccountNameW knows the accounts of C:\lab\domain.txt, one a line: name, tab, SID. Everything built on it follows
///     (LsaLookupNames2, NTAccount.Translate).
///  2. HttpQueryServiceConfiguration knows the certificate bindings of C:\lab\sslcert.txt, one a line: address:port or host:port.
///  3. With LAB_PSRP=1 in its environment the process serves PowerShell remoting over its standard streams (see lab/psrp.py).
/// </summary>
internal unsafe class StartupHook
{
    [DllImport("kernel32")] static extern IntPtr GetModuleHandleW([MarshalAs(UnmanagedType.LPWStr)] string n);
    [DllImport("kernel32")] static extern IntPtr LoadLibraryW([MarshalAs(UnmanagedType.LPWStr)] string n);
    [DllImport("kernel32")] static extern IntPtr GetProcAddress(IntPtr m, [MarshalAs(UnmanagedType.LPStr)] string n);
    [DllImport("kernel32")] static extern bool VirtualProtect(IntPtr a, UIntPtr s, uint p, out uint o);
    [DllImport("advapi32")] static extern bool ConvertStringSidToSidW([MarshalAs(UnmanagedType.LPWStr)] string s, out IntPtr sid);
    [DllImport("advapi32")] static extern int GetLengthSid(IntPtr sid);
    [DllImport("kernel32")] static extern IntPtr LocalFree(IntPtr p);

    const int Size = 12;
    const string Accounts = @"C:\lab\domain.txt", Certificates = @"C:\lab\sslcert.txt";
    static readonly object gate = new object();
    static byte* lookup;
    static readonly byte[] kept = new byte[Size];

    public static void Initialize()
    {
        if (GetProcAddress(GetModuleHandleW("ntdll.dll"), "wine_get_version") == IntPtr.Zero) return;
        if (File.Exists(Accounts))
        {
            lookup = (byte*)GetProcAddress(LoadLibraryW("advapi32.dll"), "LookupAccountNameW");
            for (int i = 0; i < Size; i++) kept[i] = lookup[i];
            Prepare("LookupAccount");
            Patch();
        }
        if (File.Exists(Certificates))
        {
            Prepare("QueryHttp");
            delegate* unmanaged<IntPtr, int, IntPtr, uint, byte*, uint, uint*, IntPtr, uint> query = &QueryHttp;
            Jump((byte*)GetProcAddress(LoadLibraryW("httpapi.dll"), "HttpQueryServiceConfiguration"), (ulong)query);
        }
        if (Environment.GetEnvironmentVariable("LAB_PSRP") == "1") Serve();
    }

    // What pwsh -ServerMode does. The host program never comes to its Main, where the lab's own build has its repairs.
    static void Serve()
    {
        const BindingFlags Static = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic;
        Environment.SetEnvironmentVariable("LAB_PSRP", null);
        Assembly.Load("pwsh").GetType("StartupHook")?.GetMethod("Initialize", Static)?.Invoke(null, null);
        Type server = Assembly.Load("System.Management.Automation").GetType("System.Management.Automation.Remoting.Server.StdIOProcessMediator");
        // initial command, working directory, name and file of a configuration, standard error together with output
        server.GetMethod("Run", Static).Invoke(null, new object[] { "", null, null, null, false });
        Environment.Exit(0);
    }

    static void Prepare(string name)
    {
        RuntimeHelpers.PrepareMethod(typeof(StartupHook).GetMethod(name, System.Reflection.BindingFlags.NonPublic | System.Reflection.BindingFlags.Static)!.MethodHandle);
    }

    static void Jump(byte* at, ulong target)
    {
        VirtualProtect((IntPtr)at, Size, 0x40, out _);
        at[0] = 0x48; at[1] = 0xb8; *(ulong*)(at + 2) = target; at[10] = 0xff; at[11] = 0xe0; // mov rax, target; jmp rax
    }

    static void Patch()
    {
        delegate* unmanaged<char*, char*, byte*, uint*, char*, uint*, int*, int> hook = &LookupAccount;
        Jump(lookup, (ulong)hook);
    }

    static string Sid(string name)
    {
        foreach (string line in File.ReadAllLines(Accounts))
        {
            string[] words = line.Split('\t');
            if (words.Length == 2 && string.Equals(words[0], name, StringComparison.OrdinalIgnoreCase)) return words[1];
        }
        return null;
    }

    [UnmanagedCallersOnly]
    static int LookupAccount(char* system, char* account, byte* sid, uint* sidSize, char* domain, uint* domainSize, int* use)
    {
        lock (gate)
        {
            string name = account == null ? "" : new string(account);
            string known = Sid(name);
            if (known == null)
            {
                for (int i = 0; i < Size; i++) lookup[i] = kept[i];
                int answer = ((delegate* unmanaged<char*, char*, byte*, uint*, char*, uint*, int*, int>)lookup)(system, account, sid, sidSize, domain, domainSize, use);
                int error = Marshal.GetLastSystemError();
                Patch();
                Marshal.SetLastSystemError(error);
                return answer;
            }
            int slash = name.IndexOf('\\');
            string of = slash > 0 ? name.Substring(0, slash) : "FARM";
            ConvertStringSidToSidW(known, out IntPtr found);
            uint need = (uint)GetLengthSid(found);
            bool fits = *sidSize >= need && *domainSize > of.Length;
            if (fits)
            {
                Buffer.MemoryCopy((void*)found, sid, need, need);
                for (int i = 0; i < of.Length; i++) domain[i] = of[i];
                domain[of.Length] = '\0';
                *domainSize = (uint)of.Length;
                *use = 1; // SidTypeUser
            }
            else *domainSize = (uint)of.Length + 1;
            *sidSize = need;
            LocalFree(found);
            Marshal.SetLastSystemError(fits ? 0 : 122);
            return fits ? 1 : 0;
        }
    }

    // HTTP_SERVICE_CONFIG_SSL_QUERY: QueryDesc (0 exact, 1 next), KeyDesc.pIpPort or KeyDesc.Host, dwToken. The answer to "next" is a
    // HTTP_SERVICE_CONFIG_SSL_SET with only its key filled in: ours are read for their keys alone.
    [UnmanagedCallersOnly]
    static uint QueryHttp(IntPtr handle, int id, IntPtr input, uint inputSize, byte* output, uint outputSize, uint* returned, IntPtr overlapped)
    {
        const int SslCertInfo = 1, SslSniCertInfo = 8, room = 512;
        if (id != SslCertInfo && id != SslSniCertInfo) return 87;
        // Key: a pointer to a SOCKADDR, or a SOCKADDR_STORAGE (128 bytes) and a pointer to the host's name.
        uint token = *(uint*)((byte*)input + (id == SslCertInfo ? 16 : 8 + 136));
        List<(string, int)> found = new List<(string, int)>();
        foreach (string line in File.ReadAllLines(Certificates))
        {
            int colon = line.LastIndexOf(':');
            if (colon < 1) continue;
            string name = line.Substring(0, colon).Trim('[', ']');
            if (System.Net.IPAddress.TryParse(name, out _) == (id == SslCertInfo)) found.Add((name, int.Parse(line.Substring(colon + 1))));
        }
        if (token >= found.Count) return 259;
        if (returned != null) *returned = room;
        if (output == null || outputSize < room) return 122;
        for (int i = 0; i < room; i++) output[i] = 0;
        (string host, int port) = found[(int)token];
        byte* address = id == SslCertInfo ? output + 256 : output;
        address[2] = (byte)(port >> 8);
        address[3] = (byte)port;
        if (id == SslCertInfo)
        {
            byte[] raw = System.Net.IPAddress.Parse(host).GetAddressBytes();
            *(ushort*)address = (ushort)(raw.Length == 4 ? 2 : 23);
            for (int i = 0; i < raw.Length; i++) address[(raw.Length == 4 ? 4 : 8) + i] = raw[i];
            *(byte**)output = address;
        }
        else
        {
            *(ushort*)address = 2;
            char* text = (char*)(output + 256);
            for (int i = 0; i < host.Length; i++) text[i] = host[i];
            *(char**)(output + 128) = text;
        }
        return 0;
    }
}
