"""`cgnrt serve`: a plan behind the Open Inference Protocol (KServe v2), over HTTP and gRPC."""
