"""One bundle on every node of a Ray cluster, behind one server: `ripieno deploy`.

Theory of operation. Every node runs the engine as a separate Ray Serve application (`cluster`): one replica with all
resources of the node (`replica`). The bundle's members are placed on that node's devices (`replan`). The server and its
limits are those of `ripieno serve`; a `ReplicaRouter` replaces the engine. It queues the requests, and the nodes pull
them: two calling threads per node each take their share of the waiting chunks. Fast nodes therefore take more, many
small requests are sent as one, and the load of a node need not be estimated. A request stays here until it is answered:
when a node dies, its chunks go back to the head of the queue.
"""
