"""The campaign: measurements that are run from a checkout and whose results are
committed."""
