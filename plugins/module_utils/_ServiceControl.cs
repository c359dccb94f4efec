// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

// The service control manager, as far as a key change needs it. Its own calls tell what ServiceController hides: the exit
// code of a service that failed to start, which for IIS is the HRESULT of the key or file that did not open.

using System;
using System.Collections.Generic;
using System.ComponentModel;
using System.Runtime.InteropServices;

//TypeAccelerator -Name WebfarmService -TypeName WebfarmService
//TypeAccelerator -Name WebfarmServiceState -TypeName WebfarmServiceState

namespace ansible_collections.webfarm.iis.plugins.module_utils._ServiceControl
{
    public class WebfarmServiceState
    {
        public string Name;
        public string DisplayName;
        public bool Installed;
        public string Status;           // stopped, start_pending, stop_pending, running, continue_pending, pause_pending, paused
        public string StartType;        // auto, manual, disabled, boot, system
        public string[] DependsOn;      // names of services
        public uint ExitCode;           // Win32 code, or the service's own code where it gave one
        public bool OwnExitCode;
        public uint ProcessId;
    }

    internal static class ServiceNative
    {
        [StructLayout(LayoutKind.Sequential)]
        internal struct SERVICE_STATUS_PROCESS
        {
            public uint ServiceType;
            public uint CurrentState;
            public uint ControlsAccepted;
            public uint Win32ExitCode;
            public uint ServiceSpecificExitCode;
            public uint CheckPoint;
            public uint WaitHint;
            public uint ProcessId;
            public uint ServiceFlags;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct SERVICE_STATUS
        {
            public uint ServiceType;
            public uint CurrentState;
            public uint ControlsAccepted;
            public uint Win32ExitCode;
            public uint ServiceSpecificExitCode;
            public uint CheckPoint;
            public uint WaitHint;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct QUERY_SERVICE_CONFIG
        {
            public uint ServiceType;
            public uint StartType;
            public uint ErrorControl;
            public IntPtr BinaryPathName;
            public IntPtr LoadOrderGroup;
            public uint TagId;
            public IntPtr Dependencies;
            public IntPtr ServiceStartName;
            public IntPtr DisplayName;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct ENUM_SERVICE_STATUS_PROCESS
        {
            public IntPtr ServiceName;
            public IntPtr DisplayName;
            public SERVICE_STATUS_PROCESS Status;
        }

        [DllImport("advapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
        internal static extern IntPtr OpenSCManagerW(string machine, string database, uint access);

        [DllImport("advapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
        internal static extern IntPtr OpenServiceW(IntPtr manager, string name, uint access);

        [DllImport("advapi32.dll", SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool CloseServiceHandle(IntPtr handle);

        [DllImport("advapi32.dll", SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool QueryServiceStatusEx(
            IntPtr service, int level, ref SERVICE_STATUS_PROCESS status, uint size, out uint needed);

        [DllImport("advapi32.dll", SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool QueryServiceConfigW(IntPtr service, IntPtr config, uint size, out uint needed);

        [DllImport("advapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool ChangeServiceConfigW(IntPtr service, uint type, uint startType, uint errorControl, string program,
            string group, IntPtr tag, string dependencies, string account, string accountWord, string displayName);

        [DllImport("advapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool StartServiceW(IntPtr service, uint count, IntPtr arguments);

        [DllImport("advapi32.dll", SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool ControlService(IntPtr service, uint control, ref SERVICE_STATUS status);

        [DllImport("advapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
        [return: MarshalAs(UnmanagedType.Bool)]
        internal static extern bool EnumServicesStatusExW(IntPtr manager, int level, uint type, uint state, IntPtr services,
            uint size, out uint needed, out uint returned, ref uint resume, string group);
    }

    public static class WebfarmService
    {
        private const uint ManagerConnect = 0x0001;
        private const uint ManagerEnumerate = 0x0004;
        private const uint ServiceQueryConfig = 0x0001;
        private const uint ServiceChangeConfig = 0x0002;
        private const uint ServiceQueryStatus = 0x0004;
        private const uint ServiceStart = 0x0010;
        private const uint ServiceStop = 0x0020;
        private const int ErrorAccessDenied = 5;
        private const int ErrorInsufficientBuffer = 122;
        private const int ErrorMoreData = 234;
        private const int ErrorAlreadyRunning = 1056;
        private const int ErrorDoesNotExist = 1060;
        private const int ErrorNotActive = 1062;
        private const uint ServiceSpecificError = 1066;

        private static readonly string[] States = new string[] {
            "unknown", "stopped", "start_pending", "stop_pending", "running", "continue_pending", "pause_pending", "paused" };
        private static readonly string[] StartTypes = new string[] { "boot", "system", "auto", "manual", "disabled" };

        public static WebfarmServiceState Query(string name)
        {
            WebfarmServiceState result = new WebfarmServiceState();
            result.Name = name;
            result.DisplayName = name;
            result.Status = "stopped";
            result.StartType = "";
            result.DependsOn = new string[0];
            IntPtr manager = OpenManager(ManagerConnect);
            IntPtr service = IntPtr.Zero;
            try
            {
                service = ServiceNative.OpenServiceW(manager, name, ServiceQueryConfig | ServiceQueryStatus);
                if (service == IntPtr.Zero)
                {
                    int error = Marshal.GetLastWin32Error();
                    if (error == ErrorDoesNotExist)
                    {
                        return result;
                    }
                    throw new Win32Exception(error, "The service " + name + " cannot be opened: " + new Win32Exception(error).Message);
                }
                result.Installed = true;
                ServiceNative.SERVICE_STATUS_PROCESS status = ReadStatus(service, name);
                result.Status = status.CurrentState < States.Length ? States[status.CurrentState] : "unknown";
                result.OwnExitCode = status.Win32ExitCode == ServiceSpecificError;
                result.ExitCode = result.OwnExitCode ? status.ServiceSpecificExitCode : status.Win32ExitCode;
                result.ProcessId = status.ProcessId;
                ReadConfiguration(service, result);
                return result;
            }
            finally
            {
                Close(service);
                Close(manager);
            }
        }

        // The given services and every service of the machine that depends on one of them, directly or through others.
        // Each service comes before the ones that it needs, so that they can be stopped in this order. What is not
        // installed is left out.
        public static string[] StopOrder(string[] roots)
        {
            Dictionary<string, string[]> needs = new Dictionary<string, string[]>(StringComparer.OrdinalIgnoreCase);
            foreach (string candidate in Names())
            {
                try
                {
                    WebfarmServiceState found = Query(candidate);
                    if (found.Installed)
                    {
                        needs[candidate] = found.DependsOn;
                    }
                }
                catch (Win32Exception error)
                {
                    // A protected service of the system does not show its configuration; none of them needs IIS.
                    if (error.NativeErrorCode != ErrorAccessDenied)
                    {
                        throw;
                    }
                }
            }
            List<string> order = new List<string>();
            HashSet<string> seen = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
            foreach (string root in roots)
            {
                if (needs.ContainsKey(root))
                {
                    Collect(root, needs, order, seen);
                }
            }
            return order.ToArray();
        }

        private static void Collect(string name, Dictionary<string, string[]> needs, List<string> order, HashSet<string> seen)
        {
            if (!seen.Add(name))
            {
                return;
            }
            foreach (KeyValuePair<string, string[]> entry in needs)
            {
                foreach (string needed in entry.Value)
                {
                    if (string.Equals(needed, name, StringComparison.OrdinalIgnoreCase))
                    {
                        Collect(entry.Key, needs, order, seen);
                    }
                }
            }
            order.Add(name);
        }

        // Asks the service to start and returns at once. A service that runs already is fine.
        public static void Start(string name)
        {
            IntPtr manager = OpenManager(ManagerConnect);
            IntPtr service = IntPtr.Zero;
            try
            {
                service = ServiceNative.OpenServiceW(manager, name, ServiceStart);
                if (service == IntPtr.Zero)
                {
                    throw new Win32Exception();
                }
                if (!ServiceNative.StartServiceW(service, 0, IntPtr.Zero))
                {
                    int error = Marshal.GetLastWin32Error();
                    if (error != ErrorAlreadyRunning)
                    {
                        throw new Win32Exception(error);
                    }
                }
            }
            finally
            {
                Close(service);
                Close(manager);
            }
        }

        // Asks the service to stop and returns at once. A service that is stopped already is fine.
        public static void Stop(string name)
        {
            const uint controlStop = 1;
            IntPtr manager = OpenManager(ManagerConnect);
            IntPtr service = IntPtr.Zero;
            try
            {
                service = ServiceNative.OpenServiceW(manager, name, ServiceStop);
                if (service == IntPtr.Zero)
                {
                    throw new Win32Exception();
                }
                ServiceNative.SERVICE_STATUS status = new ServiceNative.SERVICE_STATUS();
                if (!ServiceNative.ControlService(service, controlStop, ref status))
                {
                    int error = Marshal.GetLastWin32Error();
                    if (error != ErrorNotActive)
                    {
                        throw new Win32Exception(error);
                    }
                }
            }
            finally
            {
                Close(service);
                Close(manager);
            }
        }

        // Sets the start type and nothing else; that an automatic start is delayed is a mark of its own and stays.
        public static void SetStartType(string name, string startType)
        {
            const uint noChange = 0xFFFFFFFF;
            int wanted = Array.IndexOf(StartTypes, startType);
            if (wanted < 2)
            {
                throw new ArgumentException("The start type " + startType + " cannot be set.");
            }
            IntPtr manager = OpenManager(ManagerConnect);
            IntPtr service = IntPtr.Zero;
            try
            {
                service = ServiceNative.OpenServiceW(manager, name, ServiceChangeConfig);
                if (service == IntPtr.Zero || !ServiceNative.ChangeServiceConfigW(service, noChange, (uint)wanted, noChange, null, null,
                    IntPtr.Zero, null, null, null, null))
                {
                    int error = Marshal.GetLastWin32Error();
                    throw new Win32Exception(error, "The start type of the service " + name + " cannot be set: " +
                        new Win32Exception(error).Message);
                }
            }
            finally
            {
                Close(service);
                Close(manager);
            }
        }

        private static IntPtr OpenManager(uint access)
        {
            IntPtr manager = ServiceNative.OpenSCManagerW(null, null, access);
            if (manager == IntPtr.Zero)
            {
                int error = Marshal.GetLastWin32Error();
                throw new Win32Exception(error, "The service control manager does not answer: " + new Win32Exception(error).Message);
            }
            return manager;
        }

        private static void Close(IntPtr handle)
        {
            if (handle != IntPtr.Zero)
            {
                ServiceNative.CloseServiceHandle(handle);
            }
        }

        private static ServiceNative.SERVICE_STATUS_PROCESS ReadStatus(IntPtr service, string name)
        {
            ServiceNative.SERVICE_STATUS_PROCESS status = new ServiceNative.SERVICE_STATUS_PROCESS();
            uint needed;
            uint size = (uint)Marshal.SizeOf(typeof(ServiceNative.SERVICE_STATUS_PROCESS));
            if (!ServiceNative.QueryServiceStatusEx(service, 0, ref status, size, out needed))
            {
                int error = Marshal.GetLastWin32Error();
                throw new Win32Exception(error, "The state of the service " + name + " cannot be read: " + new Win32Exception(error).Message);
            }
            return status;
        }

        private static void ReadConfiguration(IntPtr service, WebfarmServiceState result)
        {
            uint needed;
            ServiceNative.QueryServiceConfigW(service, IntPtr.Zero, 0, out needed);
            int error = Marshal.GetLastWin32Error();
            if (error != ErrorInsufficientBuffer)
            {
                throw new Win32Exception(error);
            }
            IntPtr buffer = Marshal.AllocHGlobal((int)needed);
            try
            {
                if (!ServiceNative.QueryServiceConfigW(service, buffer, needed, out needed))
                {
                    throw new Win32Exception();
                }
                ServiceNative.QUERY_SERVICE_CONFIG config = (ServiceNative.QUERY_SERVICE_CONFIG)Marshal.PtrToStructure(
                    buffer, typeof(ServiceNative.QUERY_SERVICE_CONFIG));
                result.StartType = config.StartType < StartTypes.Length ? StartTypes[config.StartType] : "";
                string display = Marshal.PtrToStringUni(config.DisplayName);
                if (!string.IsNullOrEmpty(display))
                {
                    result.DisplayName = display;
                }
                result.DependsOn = ReadList(config.Dependencies);
            }
            finally
            {
                Marshal.FreeHGlobal(buffer);
            }
        }

        // A double-terminated list; entries that begin with + name a load-order group, not a service.
        private static string[] ReadList(IntPtr start)
        {
            List<string> found = new List<string>();
            if (start == IntPtr.Zero)
            {
                return found.ToArray();
            }
            long position = start.ToInt64();
            while (true)
            {
                string entry = Marshal.PtrToStringUni(new IntPtr(position));
                if (string.IsNullOrEmpty(entry))
                {
                    return found.ToArray();
                }
                if (entry[0] != '+')
                {
                    found.Add(entry);
                }
                position += 2 * (entry.Length + 1);
            }
        }

        private static List<string> Names()
        {
            const uint win32Services = 0x30;
            const uint activeAndInactive = 3;
            List<string> names = new List<string>();
            IntPtr manager = OpenManager(ManagerConnect | ManagerEnumerate);
            IntPtr buffer = IntPtr.Zero;
            try
            {
                uint size = 65536;
                uint resume = 0;
                bool more = true;
                buffer = Marshal.AllocHGlobal((int)size);
                int step = Marshal.SizeOf(typeof(ServiceNative.ENUM_SERVICE_STATUS_PROCESS));
                while (more)
                {
                    uint needed;
                    uint returned;
                    more = false;
                    if (!ServiceNative.EnumServicesStatusExW(manager, 0, win32Services, activeAndInactive, buffer, size,
                        out needed, out returned, ref resume, null))
                    {
                        int error = Marshal.GetLastWin32Error();
                        if (error != ErrorMoreData)
                        {
                            throw new Win32Exception(error, "The services cannot be listed: " + new Win32Exception(error).Message);
                        }
                        more = true;
                        if (returned == 0)
                        {
                            Marshal.FreeHGlobal(buffer);
                            buffer = IntPtr.Zero;
                            size += needed;
                            buffer = Marshal.AllocHGlobal((int)size);
                        }
                    }
                    for (int i = 0; i < returned; i++)
                    {
                        IntPtr entry = new IntPtr(buffer.ToInt64() + (long)i * step);
                        ServiceNative.ENUM_SERVICE_STATUS_PROCESS item = (ServiceNative.ENUM_SERVICE_STATUS_PROCESS)Marshal.PtrToStructure(
                            entry, typeof(ServiceNative.ENUM_SERVICE_STATUS_PROCESS));
                        names.Add(Marshal.PtrToStringUni(item.ServiceName));
                    }
                }
                return names;
            }
            finally
            {
                if (buffer != IntPtr.Zero)
                {
                    Marshal.FreeHGlobal(buffer);
                }
                Close(manager);
            }
        }
    }
}
