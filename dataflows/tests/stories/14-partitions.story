# Within a partition the first delivery stands for its job. Between partitions, which have no order of delivery, it is
# the oldest: here 1@4, so that the draft keeps the images of job b.
drafts d1

epoch
0@8 t=2000 b d1
0@9 t=3000 a d1
1@4 t=1000 a d1
1@5 t=500 a d1
---
0@8 applied
0@9 duplicate
1@4 superseded
1@5 duplicate

d1: images of 0@8, job b, t=2000; remembers b a
deleted keys: d1
