# Job a loses against job b within one epoch. When it comes again, with a time that would make it the newest, it is still
# a duplicate: it must not bring its old images back.
drafts d1

epoch
0@0 t=1000 a d1
0@1 t=2000 b d1
epoch
0@2 t=9000 a d1
---
0@0 superseded
0@1 applied
0@2 duplicate

d1: images of 0@1, job b, t=2000; remembers b a
deleted keys: d1
