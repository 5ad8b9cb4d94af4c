"""The standard-library modules that the runtime carries. What is not imported while it is built does not exist later.

Left out: what needs the machine (`ctypes`, `mmap`, `fcntl`, `ssl`, `curses`, …: not part of the sandbox's Python), what
starts or talks to other processes, and tools for developing Python itself.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

_NAMES = """
    __future__ _thread abc annotationlib argparse array ast asyncio atexit base64 bdb binascii bisect builtins
    calendar cmath cmd code codecs codeop collections collections.abc colorsys compression.gzip compression.zlib
    concurrent.futures concurrent.futures.process concurrent.futures.thread configparser contextlib contextvars copy
    copyreg cProfile csv dataclasses datetime decimal difflib dis doctest email encodings enum errno faulthandler
    filecmp fileinput fnmatch fractions ftplib functools gc getopt getpass gettext glob graphlib gzip hashlib heapq
    hmac html http.client http.cookiejar http.cookies http.server imaplib importlib importlib.metadata
    importlib.resources importlib.resources.abc importlib.util inspect io ipaddress itertools json json.tool keyword
    linecache locale logging logging.config logging.handlers mailbox marshal math mimetypes modulefinder
    multiprocessing netrc numbers opcode operator optparse os os.path pathlib pdb pickle pickletools pkgutil
    platform plistlib posixpath pprint profile pstats pyclbr queue quopri random re reprlib runpy sched secrets
    select selectors shelve shlex shutil signal smtplib socket socketserver sqlite3 stat statistics string
    string.templatelib stringprep struct subprocess symtable sys sysconfig tarfile tempfile textwrap threading time
    timeit token tokenize tomllib trace traceback tracemalloc types typing unicodedata unittest unittest.mock
    urllib.error urllib.parse urllib.request urllib.response urllib.robotparser uuid warnings wave weakref
    wsgiref.handlers xml.dom.minidom xml.dom.pulldom xml.etree.ElementTree xml.sax xml.sax.expatreader xmlrpc.client
    zipapp zipfile zipimport zlib zoneinfo
"""
MODULES = tuple(_NAMES.split())
"""Modules that programs may import."""
WHOLE_PACKAGES = (
    *("asyncio", "collections", "email", "encodings", "html", "http", "importlib", "json", "logging", "re", "string"),
    *("unittest", "xml.dom", "xml.etree", "xml.sax", "zipfile", "zoneinfo"),
)
"""Of these every submodule too: they are imported when they are first needed."""
_OTHER_SYSTEMS = ("__main__", ".windows_events", ".windows_utils", ".mbcs", ".oem", ".tools", ".bz2_codec")


def import_all() -> None:
    """Import everything above. Raises `ImportError` if a module is missing that the sandbox's Python should have."""
    for name in MODULES:
        importlib.import_module(name)
    for name in WHOLE_PACKAGES:
        for module in pkgutil.walk_packages(sys.modules[name].__path__, f"{name}."):
            if not module.name.endswith(_OTHER_SYSTEMS):
                importlib.import_module(module.name)
