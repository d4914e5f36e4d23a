"""Where decisions live, and the leases of those who measure them.

The threat model. A store may lie where others write, and a document may come from
anyone. What is read may be damaged, foreign or hostile:

- Read is a plain file of bounded size (`folders`), of the right format and version,
  whose checksum fits, and that lies where its own key says (`files`). What is anything
  else is a miss with one warning, never an error, and is never deleted; of a document
  nothing is then imported.
- What was read is of known fields, bounded numbers and bounded texts, and was not
  measured in the future (`decision`, `environment`). A candidate in it must fit its
  problem, and need a sane amount of memory and time.
- Nothing read is executed, or names a file: paths are computed from keys.
- What is shown of it is printable and short, and a URL is shown without its user,
  password and query (`locations`).
- A file is written whole, and put in place at once. Nothing is locked; a lease is
  advice, and expires. Only files with a name and a beginning of the store's own are
  removed.

Not prevented: who can write the store can make a slow candidate serve. What serves is
an algorithm of the package all the same, and computes what native does.
"""
