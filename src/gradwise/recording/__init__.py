"""What is measured of a training run, and how it is kept.

On the way from a training script to a store (each step imports only what stands before it):

    signals    names and units of what is measured
    recording  a run as immutable data: what checks read
    frames     the pieces a recording travels in
    sink       what a probe writes to
    wire       a sink that writes a spool file, and its reader
    builder    frames -> recording; a sink for the same process
    codec      a stretch of a series <-> bytes
    downsample fewer points of the same shape
    folder, tables, engine, liveness, writer, store: recordings in a database

Nothing is imported here: `sink` and `wire` run in the user's process before torch and must load the stdlib only.
"""
