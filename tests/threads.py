"""Several threads at once."""

import threading

THREADS = 8


def in_threads(work):
    """Calls `work` with the number of its thread in each of eight threads, that begin
    together; what it raised."""
    errors, start = [], threading.Barrier(THREADS)

    def run(number):
        start.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return errors
