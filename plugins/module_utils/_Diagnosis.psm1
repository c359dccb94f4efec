# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# FOR INTERNAL COLLECTION USE ONLY
# The interfaces in this file are meant for use within this collection and may change in any release, even a bugfix
# release.

# What an error code means in the field's words: one table, kept as JSON so that Python and the documentation read the
# same text. "names" gives the symbolic name of a code. Fields of an entry:
#   id       name of the entry, for the ranking of causes and the documentation
#   codes    codes (HRESULT) that the entry explains; may be empty
#   verdicts words of the proof and container states that the entry explains; may be empty
#   context  where it happened: open, cng, decrypt, export, import, configure, service, worker, wmsvc; empty = anywhere
#   message  what Windows says, or what was seen; then cause, how to confirm it, and the fix, in plain sentences
#   plays    what mends it, the best first: playbooks and modules of this collection, and words that plugin_utils/_diagnosis.py knows
#            (history = put the last good file of the history back, history_copy = the same by hand, where the present file is no
#            configuration at all; leftover = move the left-over file away; start = start the services that do not run)
# An entry without codes and verdicts is a situation that only several facts together show; the ranking of causes names it.
# "events" says what the events of the logs point at.
# A long text is a list of pieces to be joined by a space. {container} and {provider} are filled in.
# A verdict decides before a code, a code that fits the context before both; of equals, the first entry.
$script:diagnosisTable = @'
{
  "names": {
    "0x80070002": "ERROR_FILE_NOT_FOUND",
    "0x80070003": "ERROR_PATH_NOT_FOUND",
    "0x80070005": "E_ACCESSDENIED",
    "0x80070006": "E_HANDLE",
    "0x80070008": "ERROR_NOT_ENOUGH_MEMORY",
    "0x8007000D": "ERROR_INVALID_DATA",
    "0x80070020": "ERROR_SHARING_VIOLATION",
    "0x80070050": "ERROR_FILE_EXISTS",
    "0x80070057": "E_INVALIDARG",
    "0x80070070": "ERROR_DISK_FULL",
    "0x8007007E": "ERROR_MOD_NOT_FOUND",
    "0x8007007F": "ERROR_PROC_NOT_FOUND",
    "0x8007041D": "ERROR_SERVICE_REQUEST_TIMEOUT",
    "0x80070422": "ERROR_SERVICE_DISABLED",
    "0x80070425": "ERROR_SERVICE_CANNOT_ACCEPT_CTRL",
    "0x8007042B": "ERROR_PROCESS_ABORTED",
    "0x8007042C": "ERROR_SERVICE_DEPENDENCY_FAIL",
    "0x8007042D": "ERROR_SERVICE_LOGON_FAILED",
    "0x80070459": "ERROR_NO_UNICODE_TRANSLATION",
    "0x8007052E": "ERROR_LOGON_FAILURE",
    "0x80090004": "NTE_BAD_LEN",
    "0x80090005": "NTE_BAD_DATA",
    "0x80090006": "NTE_BAD_SIGNATURE",
    "0x80090009": "NTE_BAD_FLAGS",
    "0x8009000A": "NTE_BAD_TYPE",
    "0x8009000B": "NTE_BAD_KEY_STATE",
    "0x8009000D": "NTE_NO_KEY",
    "0x8009000F": "NTE_EXISTS",
    "0x80090010": "NTE_PERM",
    "0x80090011": "NTE_NOT_FOUND",
    "0x80090016": "NTE_BAD_KEYSET",
    "0x80090017": "NTE_PROV_TYPE_NOT_DEF",
    "0x80090019": "NTE_KEYSET_NOT_DEF",
    "0x8009001A": "NTE_KEYSET_ENTRY_BAD",
    "0x80090020": "NTE_FAIL",
    "0x80090026": "NTE_INVALID_HANDLE",
    "0x80090029": "NTE_NOT_SUPPORTED"
  },
  "entries": [
    {"id": "wmsvc_access", "codes": ["0x80090016"], "verdicts": [], "context": "wmsvc",
     "message": "Keyset does not exist.",
     "cause": "LOCAL SERVICE may not read {container}; the Management Service reads the configuration under that account.",
     "confirm": "The container is present for an administrator, and its access list has no entry for LOCAL SERVICE (S-1-5-19).",
     "fix": "Grant LOCAL SERVICE read access to {container}, then restart the Management Service.",
     "plays": ["key"]},
    {"id": "worker_access", "codes": ["0x80090016", "0x80070005"], "verdicts": [], "context": "worker",
     "message": "Keyset does not exist.",
     "cause": "IIS_IUSRS may not read {container}, which is typical after an import into a new container (HTTP 500.19 in the worker process).",
     "confirm": "The container is present for an administrator, and its access list has no entry for IIS_IUSRS (S-1-5-32-568).",
     "fix": "Grant IIS_IUSRS read access to {container} (never to a WAS-only key), then restart the application pools.",
     "plays": ["key"]},
    {"id": "cng_key_missing", "codes": ["0x80090016"], "verdicts": ["missing", "missing_key"], "context": "cng",
     "message": "Keyset does not exist.",
     "cause": ["The CNG key {container} is not on this server: IIS setup did not make it, its key file was deleted, or the machine",
               "GUID changed."],
     "confirm": "No file with the expected name is in Crypto\\Keys; C:\\Windows\\iis.log says what setup did.",
     "fix": ["CNG keys do not travel: make the configuration portable (config_rewrap with cng: portable), or restore the key file",
             "of the same machine GUID from a backup."],
     "plays": ["config_rewrap"]},
    {"id": "key_missing", "codes": ["0x80090016"], "verdicts": ["missing", "missing_key"], "context": "",
     "message": "Keyset does not exist.",
     "cause": ["{container} is not on this server: its key file was deleted, or the machine GUID changed (Sysprep, a cloned machine), so",
               "that the file name no longer fits."],
     "confirm": "No file with the expected name is in the key folder; look for a file with the same first 32 digits and another machine GUID.",
     "fix": ["Import the key from a server that has it (key_export and key_import), or restore the key file of the same machine GUID",
             "from a backup. Otherwise generate a new key and enter every secret again."],
     "plays": ["provision", "key_import", "restore"]},
    {"id": "access_denied", "codes": ["0x80090010", "0x80070005"], "verdicts": ["denied"], "context": "",
     "message": "Access denied.",
     "cause": ["The key file of {container} is there, but this account may not read it: its access list, or that of the folder, was",
               "changed, or security or backup software holds the file."],
     "confirm": "The expected key file exists; its access list does not let SYSTEM and Administrators read it.",
     "fix": ["Run elevated. Restore the access list of the key file and its folder (SYSTEM and Administrators full control), and",
             "exclude the folder from other software."],
     "plays": ["key"]},
    {"id": "key_damaged", "codes": [], "verdicts": ["damaged"], "context": "",
     "message": "The key container is damaged.",
     "cause": ["{container} exists and cannot be used: its file is damaged, it was protected by another installation of Windows, or it",
               "holds no exchange key pair."],
     "confirm": "The container opens or its file exists, but its key does not.",
     "fix": "Restore the key file (system state backup of this machine), or import the key from a server that has it.",
     "plays": ["provision", "key_import", "restore"]},
    {"id": "key_corrupt", "codes": ["0x8009001A"], "verdicts": [], "context": "",
     "message": "The keyset is corrupt.",
     "cause": "{container} was found and is corrupt.",
     "confirm": "The key file exists; opening it fails for every account.",
     "fix": "Restore the key file (system state backup of this machine), or import the key from a server that has it.",
     "plays": ["provision", "key_import", "restore"]},
    {"id": "not_exportable", "codes": ["0x8009000B"], "verdicts": [], "context": "export",
     "message": "Key not valid for use in specified state.",
     "cause": "The private key of {container} is not exportable: it was imported or made without that permission.",
     "confirm": "The inventory shows exportable: false for this container.",
     "fix": "Export it from a server where it is exportable, or generate a new key for the farm. It cannot be made exportable afterwards.",
     "plays": ["rotate"]},
    {"id": "key_undecryptable", "codes": ["0x8009000B"], "verdicts": [], "context": "",
     "message": "Key not valid for use in specified state.",
     "cause": "The key file of {container} cannot be decrypted: the machine's own DPAPI secret changed, or the file is damaged.",
     "confirm": "Reading the public key fails as well; other machine keys of the same age may show it too.",
     "fix": "Restore the key file and the machine's protection secrets together (system state backup), or import the key from a server that has it.",
     "plays": ["provision", "key_import", "restore"]},
    {"id": "no_exchange_key", "codes": ["0x8009000D"], "verdicts": [], "context": "",
     "message": "Key does not exist.",
     "cause": "{container} exists without an exchange key pair.",
     "confirm": "The container opens, its exchange key does not.",
     "fix": "Import the key from a server that has it, or generate a new one.",
     "plays": ["provision", "key_import", "restore"]},
    {"id": "foreign_key", "codes": ["0x80090005"], "verdicts": ["bad_data"], "context": "",
     "message": "Bad Data.",
     "cause": ["The value or the session key of {provider} was encrypted for another key than the one in {container}: the configuration",
               "comes from another server, or the key was replaced."],
     "confirm": "Compare the public fingerprint of {container} with that of the server the file comes from.",
     "fix": "Import the key of the server that the configuration comes from, or put back this server's own configuration file.",
     "plays": ["history", "provision", "sync_keys", "key_import"]},
    {"id": "garbage", "codes": [], "verdicts": ["garbage"], "context": "",
     "message": "The value decrypts, but not to text.",
     "cause": ["The value was encrypted under another session key of {provider}: it was pasted from another file, or the session key was",
               "replaced. The AES providers carry no integrity check, so Windows itself reports no error."],
     "confirm": "Other values of the same provider decrypt, this one does not.",
     "fix": "Enter the secret again on this server, or take value and providers from the same file.",
     "plays": ["secret", "history", "provision"]},
    {"id": "unknown_provider", "codes": [], "verdicts": ["unknown_provider"], "context": "",
     "message": "The value names a provider that the file does not declare.",
     "cause": "{provider} is missing in configProtectedData/providers of this file.",
     "confirm": "Look for {provider} under configProtectedData/providers.",
     "fix": ["Take the providers section from the server that the value comes from, or enter the secret again under a provider that",
             "the file declares."],
     "plays": ["history", "provision"]},
    {"id": "unsupported_provider", "codes": [], "verdicts": ["unsupported"], "context": "",
     "message": "The kind of this provider is not known.",
     "cause": "{provider} has a type other than direct RSA, AES and CNG (a DPAPI or custom provider). Such values do not travel between servers.",
     "confirm": "Look at the type attribute of {provider} under configProtectedData/providers.",
     "fix": "Enter the secret again under one of IIS's own providers.",
     "plays": ["secret"]},
    {"id": "malformed_value", "codes": [], "verdicts": ["malformed"], "context": "",
     "message": "The protected value is not well-formed.",
     "cause": "The value is not of the form [enc:Provider:base64:enc]: it was cut off or edited by hand.",
     "confirm": "Look at the attribute in the file.",
     "fix": "Enter the secret again.",
     "plays": ["secret", "history", "provision"]},
    {"id": "needs_target", "codes": [], "verdicts": ["needs_target"], "context": "",
     "message": "The value can only be checked on a server that holds its CNG key.",
     "cause": "CNG keys do not leave their server, so that a value of {provider} cannot be decrypted elsewhere.",
     "confirm": "The provider's type is the CNG provider.",
     "fix": "Check it on the server, or make the configuration portable (config_rewrap with cng: portable)."},
    {"id": "signature_invalid", "codes": ["0x80090006"], "verdicts": [], "context": "",
     "message": "Invalid Signature.",
     "cause": "The machine GUID changed: key files of the old and of a new GUID stand side by side.",
     "confirm": "Compare the last part of the key file names with MachineGuid in the registry.",
     "fix": "Import the keys again under the present machine GUID. Putting the old GUID back breaks everything made since, certificates included.",
     "plays": ["provision", "key_import"]},
    {"id": "not_supported", "codes": ["0x80090029"], "verdicts": [], "context": "",
     "message": "The requested operation is not supported.",
     "cause": "The key storage provider does not do this for {container}: its export policy forbids it, or the machine has no such CNG algorithm.",
     "confirm": "Look at the export policy of the key.",
     "fix": "Make the configuration portable (config_rewrap with cng: portable), or use IIS's shared-configuration export."},
    {"id": "bad_type", "codes": ["0x8009000A"], "verdicts": [], "context": "",
     "message": "Invalid type specified.",
     "cause": "The key in {container} is of another kind than expected, or it was asked for in a form that its provider does not write.",
     "confirm": "Compare the store and the kind of the key with those of another server.",
     "fix": "Name the container with its proper store; do not use a container of another application."},
    {"id": "invalid_handle", "codes": ["0x80090026"], "verdicts": [], "context": "",
     "message": "The supplied handle is invalid.",
     "cause": "The key was closed or replaced while it was in use.",
     "confirm": "Run it again; see whether other software manages keys at the same time.",
     "fix": "Run it again while nothing else changes keys."},
    {"id": "internal_error", "codes": ["0x80090020"], "verdicts": [], "context": "",
     "message": "An internal error occurred.",
     "cause": "The cryptographic provider failed, often because the key file or its folder is not accessible.",
     "confirm": "Look at the access list of the key folder, and at security software.",
     "fix": "Restore the access list of the key folder; run it again."},
    {"id": "bad_flags", "codes": ["0x80090009"], "verdicts": [], "context": "",
     "message": "Invalid flags specified.",
     "cause": "This version of Windows does not know a flag of the request.",
     "confirm": "Look at the version of Windows.",
     "fix": "Use Windows Server 2016 or later."},
    {"id": "file_not_found", "codes": ["0x80070002", "0x80070003"], "verdicts": [], "context": "",
     "message": "The system cannot find the file specified.",
     "cause": "The key file or its folder is missing, or the library that opens CNG values (cngkeyhelper.dll) is not installed.",
     "confirm": "Look for the file; cngkeyhelper.dll belongs to System32 and comes with IIS 10.",
     "fix": "Import the key from a server that has it; install IIS 10 where the library is missing.",
     "plays": ["provision", "key_import"]},
    {"id": "handle_invalid", "codes": ["0x80070006"], "verdicts": [], "context": "",
     "message": "The handle is invalid.",
     "cause": "{container} could not be opened, for instance because the machine GUID could not be read or changed.",
     "confirm": "Compare the key file names with MachineGuid in the registry.",
     "fix": "Import the keys again under the present machine GUID.",
     "plays": ["provision", "key_import"]},
    {"id": "not_enough_storage", "codes": ["0x80070008"], "verdicts": [], "context": "",
     "message": "Not enough storage is available to process this command.",
     "cause": "The key could not be read; this is rarely a lack of memory.",
     "confirm": "Look at the key file and its access list first.",
     "fix": "Treat it as an unreadable key: restore or import {container}.",
     "plays": ["provision", "key_import"]},
    {"id": "data_invalid", "codes": ["0x8007000D"], "verdicts": [], "context": "",
     "message": "The data is invalid.",
     "cause": "A value cannot be decrypted, the configuration is not well-formed, or a left-over applicationHost.config.tmp stops WAS.",
     "confirm": "Look for applicationHost.config.tmp beside applicationHost.config, and check the file and its values.",
     "fix": "Delete the left-over file; put back a configuration that this server's keys can open."},
    {"id": "value_range", "codes": ["0x80070057"], "verdicts": [], "context": "",
     "message": "Value does not fall within the expected range.",
     "cause": "IIS says this when an identity is set and applicationHost.config was copied from another server, whose keys are not here.",
     "confirm": "Check the session keys of the configuration: they do not import.",
     "fix": "Import both RSA keys (iisWasKey and iisConfigurationKey) of the server that the file comes from.",
     "plays": ["provision", "key_import"]},
    {"id": "leftover_tmp", "codes": ["0x80070050"], "verdicts": [], "context": "service",
     "message": "The file exists.",
     "cause": "A left-over applicationHost.config.tmp stops WAS (events 5215 and 5005).",
     "confirm": "Look for applicationHost.config.tmp beside applicationHost.config.",
     "fix": "Delete applicationHost.config.tmp, then start WAS.",
     "plays": ["leftover"]},
    {"id": "logon_failure", "codes": ["0x8007052E"], "verdicts": [], "context": "",
     "message": "The user name or password is incorrect.",
     "cause": "The stored password of the share user (redirection.config) or of the pool is out of date, or decryption gave something else.",
     "confirm": "Check whether the value decrypts; then whether the account's password is current.",
     "fix": "Enter the password again.",
     "plays": ["secret"]},
    {"id": "dependency_failed", "codes": ["0x8007042C"], "verdicts": [], "context": "service",
     "message": "The dependency service or group failed to start.",
     "cause": "W3SVC depends on WAS, which did not start.",
     "confirm": "Look at the events of WAS (5005, 5036, 5215, 7023).",
     "fix": "Mend what stops WAS: keys, the configuration file, a left-over applicationHost.config.tmp.",
     "plays": ["start"]},
    {"id": "file_in_use", "codes": ["0x80070020"], "verdicts": [], "context": "",
     "message": "The process cannot access the file because it is being used by another process.",
     "cause": "Another program holds the file: IIS Manager, an editor, backup or security software.",
     "confirm": "See which process holds it.",
     "fix": "Close that program and run it again; exclude inetsrv\\config from scans."},
    {"id": "disk_full", "codes": ["0x80070070"], "verdicts": [], "context": "",
     "message": "There is not enough space on the disk.",
     "cause": "The disk is full.",
     "confirm": "Look at the free space of the system drive.",
     "fix": "Make room on the system drive and run it again."},
    {"id": "cng_library", "codes": ["0x8007007E", "0x8007007F"], "verdicts": [], "context": "",
     "message": "The specified module could not be found.",
     "cause": "cngkeyhelper.dll, IIS's own library for CNG values, is missing on this server.",
     "confirm": "Look for cngkeyhelper.dll in System32.",
     "fix": "Install IIS 10 (Web-Server), or do not place CNG values on this server."},
    {"id": "object_exists", "codes": ["0x8009000F"], "verdicts": [], "context": "",
     "message": "Object already exists.",
     "cause": ["The caller may not open {container}: it is there, opening it failed, and the attempt to create it then met it. It is no duplicate.",
               "In iis.log the line is harmless, it says that setup ran twice."],
     "confirm": "An administrator with an elevated token opens the container; its access list names neither SYSTEM nor Administrators.",
     "fix": "Run elevated; restore the access list of the key file (SYSTEM and Administrators full control).",
     "plays": ["key"]},
    {"id": "service_timeout", "codes": ["0x8007041D"], "verdicts": [], "context": "service",
     "message": "The service did not respond to the start or control request in a timely fashion.",
     "cause": "The service hangs at its start. That is a symptom: most often it waits for a key that it cannot read.",
     "confirm": "Look at the state and the access list of its key container first; then at events 7009 and 7011 of the Service Control Manager.",
     "fix": "Mend the key or its access list, then start the service. Only where both are right, look for what else holds the service up.",
     "plays": ["start"]},
    {"id": "service_crashed", "codes": ["0x8007042B"], "verdicts": [], "context": "service",
     "message": "The process terminated unexpectedly.",
     "cause": "The service ended by itself after it had started.",
     "confirm": "Look at event 7034 and at the application log for the process that ended.",
     "fix": "Mend what the other findings name, then start the service; otherwise look at what else is loaded into it (global modules, agents).",
     "plays": ["start"]},
    {"id": "service_disabled", "codes": ["0x80070422"], "verdicts": [], "context": "service",
     "message": "The service cannot be started, because it is disabled or because something it needs is.",
     "cause": "The start type of the service is disabled.",
     "confirm": "Look at the start type of the service and of those it depends on.",
     "fix": "Set the start type to the one the other servers of the farm have, then start it."},
    {"id": "service_logon", "codes": ["0x8007042D"], "verdicts": [], "context": "service",
     "message": "The service did not start due to a logon failure.",
     "cause": "The account of the service has another password than the one that Windows stored, or may not log on as a service.",
     "confirm": "Look at the account of the service; the IIS services run as SYSTEM, LOCAL SERVICE or NETWORK SERVICE unless somebody changed it.",
     "fix": "Put the default account of the service back, or enter its password again."},
    {"id": "cannot_accept", "codes": ["0x80070425"], "verdicts": [], "context": "",
     "message": "The service cannot accept control messages at this time.",
     "cause": "The application pool or service is just starting or stopping.",
     "confirm": "Look at its state again after some seconds.",
     "fix": "Wait until it has started or stopped, and run it again."},
    {"id": "service_failed", "codes": [], "verdicts": [], "context": "service",
     "message": "A service of IIS does not run although it should.",
     "cause": "The service ended or did not start, and no finding explains its error code.",
     "confirm": "Start it by hand and look at the events of the System and Application logs of that moment.",
     "fix": "Mend what the events name, then start the service.",
     "plays": ["start"]},
    {"id": "foreign_guid", "codes": [], "verdicts": [], "context": "",
     "message": "The key file belongs to another machine GUID.",
     "cause": ["The machine GUID changed (Sysprep, a cloned machine, a restored registry), or the file was copied from another server. Key files",
               "are named after the machine GUID and protected for one installation of Windows."],
     "confirm": "The first 32 digits of the file name are those of {container}, the rest is not MachineGuid of HKLM\\SOFTWARE\\Microsoft\\Cryptography.",
     "fix": ["Give the server the keys of the farm under its present machine GUID. Putting the old GUID back would make every key unusable that",
             "was made since, certificates included; copying or renaming key files does not help."],
     "plays": ["provision", "key_import", "restore"]},
    {"id": "several_files", "codes": [], "verdicts": [], "context": "",
     "message": "There are several files of one key container.",
     "cause": ["The machine GUID changed at some time, and Windows made a new key beside the old one. The file with the present machine GUID is",
               "the active one. If it is newer than the installation of IIS and an older file exists, the older one holds the real key."],
     "confirm": ["Compare the last part of the names with MachineGuid, and the dates with the date on which IIS was installed. With {container}",
                 "present and its values readable, the other files are left-overs."],
     "fix": ["Give the server the key that its configuration was written with (from the farm or from a backup). Left-over files can go when",
             "every value opens."],
     "plays": ["provision", "key_import", "restore"]},
    {"id": "forbidden_access", "codes": [], "verdicts": [], "context": "",
     "message": "Worker processes can read a key that only WAS should read.",
     "cause": ["The access list of {container} lets IIS_IUSRS, Users or Everyone read it, so that every site can open the passwords of all",
               "application pools."],
     "confirm": "Look at the access list of the container.",
     "fix": "Remove that entry from the key {container}.",
     "plays": ["key"]},
    {"id": "folder_access", "codes": [], "verdicts": [], "context": "",
     "message": "The key folder keeps administrators or SYSTEM out.",
     "cause": ["The access list of the MachineKeys or Keys folder was changed, by hand, by a policy or by a cleaning tool: keys cannot be opened",
               "or imported."],
     "confirm": "Compare the access list of the folder with that of another server (icacls).",
     "fix": ["Restore the access list of the folder: SYSTEM and Administrators full control, for MachineKeys Everyone with the special rights of",
             "a default installation."]},
    {"id": "folder_bloat", "codes": [], "verdicts": [], "context": "",
     "message": "The key folder holds very many files.",
     "cause": ["Some program makes a key container for each run and never deletes it (certificate imports and RSA containers of applications).",
               "Opening keys and services becomes slow, in the end the disk is full."],
     "confirm": "Sort the files of the folder by date, and see which program runs when new ones appear.",
     "fix": "Mend that program, then delete files of containers that nobody uses. Never empty the folder: the keys of IIS and of certificates are in it."},
    {"id": "config_malformed", "codes": [], "verdicts": [], "context": "",
     "message": "The configuration file is not well-formed.",
     "cause": ["The file was edited by hand, cut off or written by two programs at once. WAS does not start (event 5172) or keeps the last good",
               "version in memory until it is restarted."],
     "confirm": "The message of the file names line and reason.",
     "fix": "Put back the last version that opens, from the configuration history or a backup.",
     "plays": ["history_copy", "restore"]},
    {"id": "config_missing", "codes": [], "verdicts": [], "context": "",
     "message": "applicationHost.config does not exist.",
     "cause": "The file was deleted or moved, or IIS is not installed.",
     "confirm": "Look into inetsrv\\config, and whether the Web-Server role is installed.",
     "fix": "Put back the last version that opens, from the configuration history or a backup.",
     "plays": ["history_copy", "restore"]},
    {"id": "redirected", "codes": [], "verdicts": [], "context": "",
     "message": "IIS reads its configuration from a share.",
     "cause": ["redirection.config sends IIS to a shared configuration. What is wrong with the local file does not matter; the share must be",
               "reachable and the keys of the server must open the file there."],
     "confirm": "Look at redirection.config, at the share with its account, and whether another server with the same shared configuration serves.",
     "fix": "Mend the share or its account (a stale password shows as error 1326 of WAS and 1068 of W3SVC), or disable the shared configuration."},
    {"id": "pool_identity", "codes": [], "verdicts": [], "context": "",
     "message": "The identity of an application pool is invalid.",
     "cause": ["The password of the account is no longer the current one, the account is locked or disabled, or it may not log on as a batch job",
               "(events 5021 and 5057). The encrypted password itself opens."],
     "confirm": "The value of processModel/@password is ok; the pool is stopped although it starts automatically.",
     "fix": "Enter the current password of the account, or grant it the right to log on as a batch job; then start the pool.",
     "plays": ["secret"]},
    {"id": "pool_failures", "codes": [], "verdicts": [], "context": "",
     "message": "An application pool was stopped after a series of failures.",
     "cause": "Rapid-fail protection disabled the pool (event 5002): its worker processes ended again and again.",
     "confirm": "Look at the application log for what ended them. An encrypted value that the worker cannot read is one reason (event 2307).",
     "fix": "Mend what ends the worker, then start the pool."},
    {"id": "pool_stopped", "codes": [], "verdicts": [], "context": "",
     "message": "An application pool that starts automatically is stopped.",
     "cause": "Somebody stopped it, or WAS did: after an invalid identity, a series of failures, or a configuration that was not readable at that time.",
     "confirm": "Look at the events of WAS for the name of the pool.",
     "fix": "Mend what the events name, then start the pool. A restored configuration does not start pools that WAS stopped."},
    {"id": "certificate_store", "codes": [], "verdicts": [], "context": "",
     "message": "A password of the Centralized Certificate Store does not open.",
     "cause": "The value in the registry was encrypted for another iisWasKey: that key was replaced without encrypting the value anew.",
     "confirm": "Look at Password and PrivateKeyPassword of HKLM\\SOFTWARE\\Microsoft\\IIS\\CentralCertProvider.",
     "fix": "Enter both passwords again (IIS Manager, Centralized Certificates, or Set-WebCentralCertProvider), or give the server the old key back."},
    {"id": "not_elevated", "codes": [], "verdicts": [], "context": "",
     "message": "The account has no administrator rights here.",
     "cause": "The token of the remote logon is not elevated: for local accounts UAC filters it.",
     "confirm": "The message of the module names the account.",
     "fix": "Connect with a domain account that is a local administrator, with the built-in Administrator, or use become with runas."},
    {"id": "process_32bit", "codes": [], "verdicts": [], "context": "",
     "message": "The remote PowerShell is a 32-bit process.",
     "cause": "A 32-bit process sees another inetsrv folder and another registry than IIS.",
     "confirm": "The message of the module says so.",
     "fix": "Use the 64-bit session configuration (Microsoft.PowerShell)."},
    {"id": "constrained_language", "codes": [], "verdicts": [], "context": "",
     "message": "PowerShell runs in constrained language mode.",
     "cause": ["A policy (App Control for Business, AppLocker or __PSLockdownPolicy) lets only signed scripts use .NET types; the modules of this",
               "collection need C#."],
     "confirm": "The expression $ExecutionContext.SessionState.LanguageMode answers ConstrainedLanguage (ansible.builtin.raw shows it).",
     "fix": ["Sign the collection (ansible-core 2.19 or later, New-AnsiblePowerShellSignature.ps1) and trust the certificate in the policy; see",
             "the guide about hardened hosts."]},
    {"id": "unreachable", "codes": [], "verdicts": [], "context": "",
     "message": "The server does not answer.",
     "cause": "Ansible could not connect to the server or could not log on.",
     "confirm": "The message of the connection plugin says what failed.",
     "fix": "Mend the connection first: name, port, certificate, account."}
  ],
  "events": [
    {"source": "Microsoft-Windows-IIS-W3SVC-WP", "id": 2276, "entry": "", "text": "The worker process failed to initialise."},
    {"source": "Microsoft-Windows-IIS-W3SVC-WP", "id": 2297, "entry": "foreign_key", "text": "As 2307, for the list of global modules."},
    {"source": "Microsoft-Windows-IIS-W3SVC-WP", "id": 2307, "entry": "foreign_key", "text": "The worker process failed to decrypt an attribute."},
    {"source": "Microsoft-Windows-WAS", "id": 5002, "entry": "pool_failures", "text": "A pool was disabled after a series of failures."},
    {"source": "Microsoft-Windows-WAS", "id": 5005, "entry": "", "text": "WAS is stopping because it encountered an error."},
    {"source": "Microsoft-Windows-WAS", "id": 5009, "entry": "", "text": "A process serving a pool terminated unexpectedly."},
    {"source": "Microsoft-Windows-WAS", "id": 5021, "entry": "pool_identity", "text": "The identity of a pool is invalid."},
    {"source": "Microsoft-Windows-WAS", "id": 5036, "entry": "", "text": "The configuration manager of WAS did not initialise."},
    {"source": "Microsoft-Windows-WAS", "id": 5053, "entry": "", "text": "A change notification could not be processed."},
    {"source": "Microsoft-Windows-WAS", "id": 5057, "entry": "pool_identity", "text": "A pool was disabled because its identity is invalid."},
    {"source": "Microsoft-Windows-WAS", "id": 5059, "entry": "pool_failures", "text": "A pool was disabled because its worker process could not be started."},
    {"source": "Microsoft-Windows-WAS", "id": 5172, "entry": "config_malformed", "text": "WAS could not read configuration data from a file."},
    {"source": "Microsoft-Windows-WAS", "id": 5189, "entry": "", "text": "The configuration file of a pool could not be generated."},
    {"source": "Microsoft-Windows-WAS", "id": 5191, "entry": "", "text": "The temporary folder is a UNC path."},
    {"source": "Microsoft-Windows-WAS", "id": 5215, "entry": "leftover_tmp", "text": "The offline setup of WAS failed to initialise."},
    {"source": "Service Control Manager", "id": 7001, "entry": "dependency_failed", "text": "A service depends on one that failed to start."},
    {"source": "Service Control Manager", "id": 7009, "entry": "service_timeout", "text": "A timeout was reached while waiting for a service to connect."},
    {"source": "Service Control Manager", "id": 7011, "entry": "service_timeout", "text": "A timeout was reached while waiting for a service to respond."},
    {"source": "Service Control Manager", "id": 7023, "entry": "", "text": "A service terminated with an error."},
    {"source": "Service Control Manager", "id": 7024, "entry": "", "text": "A service terminated with a service-specific error."},
    {"source": "Service Control Manager", "id": 7034, "entry": "service_crashed", "text": "A service terminated unexpectedly."}
  ]
}
'@
$script:parsedTable = $null

Function Format-WebfarmCode {
    <#
    .SYNOPSIS
    Writes an error code the way Windows tools show it, for instance 0x80090016.

    .PARAMETER Code
    The HRESULT or Win32 code. A plain Win32 code becomes its HRESULT.
    #>
    [CmdletBinding()]
    [OutputType([string])]
    param (
        [Parameter(Mandatory = $true)]
        [uint32]
        $Code
    )

    $value = [int64]$Code
    if ($value -gt 0 -and $value -le 0xFFFF) {
        # 0x80070000 as a literal would be a negative Int32.
        $value += 2147942400
    }
    '0x{0:X8}' -f $value
}

Function Get-WebfarmDiagnosisTable {
    <#
    .SYNOPSIS
    Returns the table: an object with the properties names and entries.
    #>
    [CmdletBinding()]
    param ()

    if ($null -eq $script:parsedTable) {
        $script:parsedTable = ConvertFrom-Json -InputObject $script:diagnosisTable
    }
    $script:parsedTable
}

Function Get-WebfarmDiagnosis {
    <#
    .SYNOPSIS
    Explains an error code or a verdict: name, cause, how to confirm it, what to do. Never throws.

    .PARAMETER Code
    The HRESULT or Win32 code, 0 when there is none.

    .PARAMETER Verdict
    The verdict of the proof or the state of the container, when there is one.

    .PARAMETER Context
    Where it happened; it chooses between the meanings of one code.

    .PARAMETER Container
    The key container, named in the texts.

    .PARAMETER Provider
    The provider, named in the texts.
    #>
    [CmdletBinding()]
    [OutputType([System.Collections.Specialized.OrderedDictionary])]
    param (
        [Parameter()]
        [uint32]
        $Code = 0,

        [Parameter()]
        [AllowEmptyString()]
        [AllowNull()]
        [string]
        $Verdict = '',

        [Parameter()]
        [ValidateSet('', 'open', 'cng', 'decrypt', 'export', 'import', 'configure', 'service', 'worker', 'wmsvc')]
        [string]
        $Context = '',

        [Parameter()]
        [AllowEmptyString()]
        [AllowNull()]
        [string]
        $Container = '',

        [Parameter()]
        [AllowEmptyString()]
        [AllowNull()]
        [string]
        $Provider = ''
    )

    $hresult = $null
    if ($Code -ne 0) {
        $hresult = Format-WebfarmCode -Code $Code
    }

    $table = Get-WebfarmDiagnosisTable
    $found = $null
    $rank = 0
    foreach ($entry in $table.entries) {
        if ($entry.context -and $entry.context -ne $Context) {
            continue
        }
        $fits = 0
        if ($hresult -and $entry.codes -contains $hresult) {
            $fits = 1
            # A damaged container has many codes, each with its own story; not the one of a missing or denied container.
            if ($Verdict -eq 'damaged' -and $entry.verdicts.Count -eq 0) {
                $fits = 3
            }
        }
        if ($Verdict -and $entry.verdicts -contains $Verdict) {
            $fits = [System.Math]::Max($fits, 2)
        }
        if ($fits -gt 0 -and $entry.context) {
            $fits += 3
        }
        if ($fits -gt $rank) {
            $found = $entry
            $rank = $fits
        }
    }

    $containerText = 'the key container'
    if ($Container) {
        $containerText = $Container
    }
    $providerText = 'the provider'
    if ($Provider) {
        $providerText = $Provider
    }

    $result = [ordered]@{
        hresult = $hresult
        name = $null
        message = $null
        cause = $null
        confirm = $null
        fix = $null
    }
    if ($hresult) {
        $known = $table.names.PSObject.Properties[$hresult]
        if ($null -ne $known) {
            $result.name = $known.Value
        }
    }
    if ($null -eq $found) {
        if ($hresult) {
            $result.message = "Windows reported $hresult."
            $result.cause = "Not known for $containerText."
            $result.confirm = "Look the code up, for instance with 'certutil -error $hresult'."
            $result.fix = 'Run the task again with -vvv and look at the event logs of the server.'
        }
        return $result
    }

    foreach ($field in @('message', 'cause', 'confirm', 'fix')) {
        $text = (@($found.$field) -join ' ').Replace('{container}', $containerText).Replace('{provider}', $providerText)
        # A sentence may begin with "the key container"; a real name keeps its case.
        if ($text.StartsWith('the ')) {
            $text = 'T' + $text.Substring(1)
        }
        $result[$field] = $text
    }
    $result
}

Export-ModuleMember -Function Format-WebfarmCode, Get-WebfarmDiagnosis, Get-WebfarmDiagnosisTable
