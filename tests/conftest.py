"""What holds for every test."""

import os

# Scripts under test run beside each other and beside pytest: two torch processes with a thread per core each wait for
# one another's threads most of the time, which makes a one-second script take a minute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
