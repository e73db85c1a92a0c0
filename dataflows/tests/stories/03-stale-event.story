# Newer means the later time, then the larger offset, then the larger partition. What is older than the row's images
# changes none, but its job is remembered.
drafts d1 d2

epoch
0@5 t=2000 a d1
epoch
0@6 t=1000 b d1

# The same time: the larger offset is newer, and at the same offset the larger partition.
epoch
1@5 t=2000 c d2
epoch
0@4 t=2000 d d2
epoch
2@5 t=2000 e d2
---
0@5 applied
0@6 superseded
1@5 applied
0@4 superseded
2@5 applied

d1: images of 0@5, job a, t=2000; remembers a b
d2: images of 2@5, job e, t=2000; remembers e c d
deleted keys: d1 d2
