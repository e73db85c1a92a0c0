# The newest event of an epoch wins; the row is written once, and remembers the jobs of all of them.
drafts d1

epoch
0@0 t=1000 a d1
0@1 t=3000 b d1
0@2 t=2000 c d1
---
0@0 superseded
0@1 applied
0@2 superseded

d1: images of 0@1, job b, t=3000; remembers b c a
deleted keys: d1
