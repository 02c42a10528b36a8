"""The units of systemd for the pair, as text: two services and a socket. PURE.

What is said here and nowhere else: which limits and which confinement the daemons need or stand. Both share the IPC
namespace, a user and `/dev/shm`, so that `PrivateIPC=` and `DynamicUser=` are out of the question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WATCHDOG_S = 30
"""Silence after which systemd kills a daemon and starts it again; both give a sign of life at least once a second."""
_LIMIT_NOFILE = 65536
_LIMIT_MSGQUEUE = 8388608  # ninety queues; by default nine
_STOP_MARGIN_S = 10
_HOMES = re.compile(r"/(home|root|run/user)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the commands are, who runs them, and what the units have to agree with.

    `listen` is an address for `ListenStream=`; `drain_s` the longest drain of a daemon by default.
    """

    command_directory: str
    user: str
    listen: str
    drain_s: float


def units(place: Place) -> Mapping[str, str]:
    """Return the text of each unit by its file name."""
    return {
        "simplecached.service": _simplecached(place),
        "webproxy.service": _webproxy(place),
        "webproxy.socket": _socket(place),
    }


def _simplecached(place: Place) -> str:
    return f"""\
[Unit]
Description=gfcache object cache
Documentation=man:simplecached(1)
# A cache that is down only slows its proxies: go on trying.
StartLimitIntervalSec=0

[Service]
{_service(place, "simplecached")}
# A large store is read before the cache is ready.
TimeoutStartSec=5min
# The queue of commands is counted here: by default a user may have nine.
LimitMSGQUEUE={_LIMIT_MSGQUEUE}
# For `store = "/var/cache/gfcache"`.
CacheDirectory=gfcache
CacheDirectoryMode=0700
# Clients are the proxies, by shared memory; AF_UNIX is for this manager.
RestrictAddressFamilies=AF_UNIX
{_confinement(place)}
[Install]
WantedBy=multi-user.target
"""


def _webproxy(place: Place) -> str:
    return f"""\
[Unit]
Description=gfcache proxy
Documentation=man:webproxy(1)
# In any order: a proxy finds its cache when that appears, and serves from the origin until then.
Wants=simplecached.service
After=network.target
StartLimitIntervalSec=0

[Service]
{_service(place, "webproxy")}
# A supervisor replaces a worker that was killed for want of memory.
OOMPolicy=continue
# For `admin = "/run/gfcache/admin.sock"` and `access_log = "/var/log/gfcache/access.log"`.
RuntimeDirectory=gfcache
LogsDirectory=gfcache
# AF_NETLINK is the resolver's.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
{_confinement(place)}
[Install]
WantedBy=multi-user.target
"""


def _socket(place: Place) -> str:
    return f"""\
# Enable this to have systemd keep the port: connections wait while the proxy starts anew, and it may be below 1024.
# The address is then said here, in place of the settings `host` and `port`.
[Unit]
Description=port of the gfcache proxy
Documentation=man:webproxy(1)

[Socket]
ListenStream={place.listen}
Backlog=4096

[Install]
WantedBy=sockets.target
"""


def _service(place: Place, prog: str) -> str:
    return f"""\
Type=notify
User={place.user}
ExecStart={exec_word(f"{place.command_directory}/{prog}")} --config /etc/gfcache/{prog}.toml
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec={WATCHDOG_S}
Restart=on-failure
RestartSec=2
# Refused settings, and a queue that another process has: no further try helps.
RestartPreventExitStatus=2 73
# Requests were cut off by the end of the drain, which is no failure of the service.
SuccessExitStatus=130
# The main process tells the others: a second signal would cut off what they have.
KillMode=mixed
# Longer than the setting drain_s.
TimeoutStopSec={int(place.drain_s) + _STOP_MARGIN_S}
LimitNOFILE={_LIMIT_NOFILE}"""


def _confinement(place: Place) -> str:
    # ProtectSystem=strict and PrivateDevices= leave /dev/shm and /dev/mqueue as they are.
    hides_homes = "read-only" if _HOMES.match(f"{place.command_directory}/") else "yes"
    return f"""\
# The names in shared memory belong to both daemons: nobody else may remove them, nor see others. Hence also neither
# PrivateIPC= nor DynamicUser=; and no ProcSubset=, which hides how much memory is available.
RemoveIPC=no
UMask=0077
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={hides_homes}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
"""


def exec_word(path: str) -> str:
    """Return a path as the first word of `ExecStart=`, in quotes where it needs them (systemd.service(5))."""
    text = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if re.search(r"[\s\"'\\;]", text) else text
