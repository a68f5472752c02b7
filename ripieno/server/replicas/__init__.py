"""One bundle on every node of a Ray cluster, behind one door: `ripieno deploy`.

Theory of operation. Every node runs the engine as a Ray Serve application of its own, one replica that takes all the
node gives (`replica`, started and ended by `cluster`), with the bundle's members placed on that node's devices
(`places`). The door and its limits are those of `ripieno serve`; in the place of an engine stands a `Fleet`, which
keeps the requests and lets the nodes fetch them: two callers a node take whatever waits, their share of it at a time,
so that quick nodes take more, many small requests travel as one, and nobody has to guess how busy a node is. A request
stays here until its answer is: when a node dies, what it had goes back to the head of the queue.
"""
