// Copyright (c) 2026 the webfarm.iis authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// FOR INTERNAL COLLECTION USE ONLY. Interfaces may change in any release, even a bugfix release.

// One HTTP request to a site of this machine, over its own binding. The request goes to an address that the caller names,
// with the site's name in the Host header and in the TLS greeting: name resolution and load balancers have no part in it.
// A certificate is not judged: what is asked is whether this server serves.

using System;
using System.IO;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using System.Text;

//TypeAccelerator -Name WebfarmHttp -TypeName WebfarmHttp
//TypeAccelerator -Name WebfarmHttpAnswer -TypeName WebfarmHttpAnswer

namespace ansible_collections.webfarm.iis.plugins.module_utils._Health
{
    public class WebfarmHttpAnswer
    {
        public int Status;      // 0 when no answer came
        public string Failure;  // connect, timeout, protocol; null when an answer came
        public string Message;
        public bool KeyFailure; // a 500.19 page: the worker could not read its configuration
    }

    public static class WebfarmHttp
    {
        private const int MostBytes = 65536;

        public static WebfarmHttpAnswer Get(bool secure, string address, int port, string host, string pathAndQuery, int timeoutMilliseconds)
        {
            WebfarmHttpAnswer answer = new WebfarmHttpAnswer();
            DateTime end = DateTime.UtcNow.AddMilliseconds(timeoutMilliseconds);
            using (TcpClient client = new TcpClient(address.IndexOf(':') >= 0 ? AddressFamily.InterNetworkV6 : AddressFamily.InterNetwork))
            {
                try
                {
                    IAsyncResult connecting = client.BeginConnect(address, port, null, null);
                    if (!connecting.AsyncWaitHandle.WaitOne(Math.Min(timeoutMilliseconds, 10000)))
                    {
                        return Failed(answer, "connect", "no connection to " + address + ":" + port + " within 10 seconds");
                    }
                    client.EndConnect(connecting);
                }
                catch (SocketException error)
                {
                    return Failed(answer, "connect", error.Message);
                }
                try
                {
                    client.SendTimeout = timeoutMilliseconds;
                    client.ReceiveTimeout = timeoutMilliseconds;
                    Stream stream = client.GetStream();
                    if (secure)
                    {
                        SslStream protectedStream = new SslStream(stream, false, AnyCertificate);
                        protectedStream.AuthenticateAsClient(host);
                        stream = protectedStream;
                    }
                    using (stream)
                    {
                        Send(stream, host, port, secure, pathAndQuery);
                        Read(stream, client, end, answer);
                    }
                }
                catch (IOException error)
                {
                    SocketException inner = error.InnerException as SocketException;
                    bool late = inner != null && inner.SocketErrorCode == SocketError.TimedOut;
                    if (answer.Status == 0)
                    {
                        return Failed(answer, late ? "timeout" : "protocol", error.Message);
                    }
                }
                catch (System.Security.Authentication.AuthenticationException error)
                {
                    return Failed(answer, "protocol", "TLS: " + error.Message);
                }
            }
            return answer;
        }

        private static bool AnyCertificate(object sender, X509Certificate certificate, X509Chain chain, SslPolicyErrors errors)
        {
            return true;
        }

        private static WebfarmHttpAnswer Failed(WebfarmHttpAnswer answer, string failure, string message)
        {
            answer.Failure = failure;
            answer.Message = message;
            return answer;
        }

        private static void Send(Stream stream, string host, int port, bool secure, string pathAndQuery)
        {
            string name = host.IndexOf(':') >= 0 ? "[" + host + "]" : host;
            if (port != (secure ? 443 : 80))
            {
                name = name + ":" + port;
            }
            string text = "GET " + pathAndQuery + " HTTP/1.1\r\nHost: " + name +
                "\r\nUser-Agent: webfarm.iis health check\r\nAccept: text/html,*/*\r\nConnection: close\r\n\r\n";
            byte[] bytes = Encoding.ASCII.GetBytes(text);
            stream.Write(bytes, 0, bytes.Length);
            stream.Flush();
        }

        // The status line decides; the body is read only to tell a 500.19 from other errors.
        private static void Read(Stream stream, TcpClient client, DateTime end, WebfarmHttpAnswer answer)
        {
            byte[] buffer = new byte[MostBytes];
            int length = 0;
            bool closed = false;
            while (length < buffer.Length)
            {
                int left = (int)(end - DateTime.UtcNow).TotalMilliseconds;
                if (left <= 0)
                {
                    break;
                }
                client.ReceiveTimeout = left;
                int got = stream.Read(buffer, length, buffer.Length - length);
                if (got == 0)
                {
                    closed = true;
                    break;
                }
                length += got;
                if (answer.Status == 0)
                {
                    ParseStatus(Encoding.ASCII.GetString(buffer, 0, Math.Min(length, 1024)), answer);
                }
                if (answer.Status != 0 && answer.Status != 500)
                {
                    return;
                }
            }
            if (answer.Status == 0)
            {
                bool late = length == 0 && !closed;
                string message = late ? "no answer came in time" : length == 0 ? "the connection was closed without an answer" : "the answer is not HTTP";
                Failed(answer, late ? "timeout" : "protocol", message);
                return;
            }
            string all = Encoding.UTF8.GetString(buffer, 0, length);
            answer.KeyFailure = answer.Status == 500 && all.IndexOf("500.19", StringComparison.Ordinal) >= 0;
        }

        private static void ParseStatus(string head, WebfarmHttpAnswer answer)
        {
            int status;
            int line = head.IndexOf('\n');
            if (line < 0 || !head.StartsWith("HTTP/", StringComparison.Ordinal))
            {
                return;
            }
            string[] words = head.Substring(0, line).Trim().Split(new char[] { ' ' }, 3);
            if (words.Length >= 2 && int.TryParse(words[1], out status))
            {
                answer.Status = status;
                answer.Message = words.Length > 2 ? words[2] : "";
            }
        }
    }
}
