# A record replayed from the dead letters keeps its time, which goes on deciding what is newer.
drafts d1

epoch
0@0 t=1000 a d9
0@1 t=3000 b d1
drafts d9
epoch
0@2 t=1000 dlq.replays=1 a d9

# Where the topic stamps its own time, the original one stands in a header. So job c stays the older one here ...
epoch
0@3 t=9000 stamped dlq.replays=1 dlq.timestamp=2000 c d1

# ... and in its dead letter, if it fails again. Elsewhere that header means nothing.
0@4 t=9000 stamped dlq.replays=2 dlq.timestamp=2000 d d8
0@5 t=4000 dlq.timestamp=9000 e d1
epoch
0@6 t=5000 f d1
---
0@0 rejected, unknown-draft: no such row, 4 tries; dead letter of t=1000
0@1 applied
0@2 applied
0@3 superseded
0@4 rejected, unknown-draft: no such row, 4 tries; dead letter of t=2000
0@5 applied
0@6 applied

d1: images of 0@6, job f, t=5000; remembers f e b c
d9: images of 0@2, job a, t=1000; remembers a
deleted keys: d1 d9
