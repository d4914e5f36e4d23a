"""Where decisions live, and the leases of the workers that measure them.

The threat model. A store may be writable by others, and a document may come from
anyone. Files may be damaged, foreign or hostile:

- A file is read only if it is plain, of bounded size (`plain_files`,
  `remote_folder`), of the right format
  and version, has a matching checksum, and lies where its own key says (`files`).
  Anything else is a cache miss with one warning, never an error, and is never deleted;
  nothing is imported from such a document.
- The content has known fields, bounded numbers and bounded texts, and is not dated in
  the future (`records`, `decision`, `environment`). A candidate in it must fit its
  problem, and need a sane amount of memory and time.
- No content is executed or names a file: paths are computed from keys.
- Content is shown printable and short, and a URL without its user, password and query
  (`locations`).
- A file is written whole and replaced atomically. Nothing is locked; a lease is
  advisory, and expires. Only files with the store's own names and first bytes are
  removed.

Not prevented: whoever can write the store can make a slow candidate serve. It is still
an algorithm of the package, and computes what native does.
"""
