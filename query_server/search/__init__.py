"""Search indexes beside views: each query server keeps its own, in step with the views in Redis.

The views stay the truth. An index finds ids, and a response has the views of these ids as Redis has them. A
context declares an index (`definition.IndexDefinition`): the fields of a view's document, and of which
other views a flag in it depends. `follower.IndexFollower` fills the index and keeps it in step.
"""
