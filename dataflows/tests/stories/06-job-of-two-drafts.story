# A duplicate is the same job for the same draft. A job that is used for a second draft is not swallowed.
drafts d1 d2

epoch
0@0 t=1000 a d1
epoch
0@1 t=1000 a d2
0@2 t=1000 a d1
---
0@0 applied
0@1 applied
0@2 duplicate

d1: images of 0@0, job a, t=1000; remembers a
d2: images of 0@1, job a, t=1000; remembers a
deleted keys: d1 d2
