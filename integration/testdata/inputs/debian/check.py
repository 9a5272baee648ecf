"""Uses what apt-get has installed: compiled modules, a database, subprocesses."""
import ctypes
import hashlib
import json
import os
import sqlite3
import ssl
import subprocess
import tempfile

with tempfile.TemporaryDirectory() as d:
    db = sqlite3.connect(os.path.join(d, "x.db"))
    db.execute("create table t (n integer)")
    db.executemany("insert into t values (?)", [(i,) for i in range(1000)])
    db.commit()
    total = db.execute("select sum(n) from t").fetchone()[0]

git = subprocess.run(["git", "--version"], check=True, capture_output=True, text=True).stdout.strip()
print(json.dumps({
    "sum": total,
    "git": git.startswith("git version"),
    "ssl": bool(ssl.OPENSSL_VERSION) and len(ssl.create_default_context().get_ca_certs()) > 0,
    "sha": hashlib.sha256(b"fbuild").hexdigest()[:8],
    "libc": ctypes.CDLL(None).getpid() == os.getpid(),
    "uid": os.getuid(),
}, sort_keys=True))
