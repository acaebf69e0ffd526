# git, with one thread, and sqlite3.
export HOME=/tmp GIT_AUTHOR_DATE="2020-01-01T00:00:00Z" GIT_COMMITTER_DATE="2020-01-01T00:00:00Z"
cd $(mktemp -d)
git config --global user.email a@b
git config --global user.name n
git config --global init.defaultBranch main
git config --global pack.threads 1
git init -q r
cd r
seq 100 > f
git add f
git commit -qm one
git rev-parse HEAD
sed -i 's/^5$/five/' f
git diff | tail -n +5
git commit -qam two
git log --oneline --stat
git checkout -q -b side HEAD~1
echo x > g
git add g
git commit -qm three
git checkout -q main
git merge -q side -m merge
git rev-parse HEAD
git log --graph --oneline
git gc -q
git fsck
git clone -q . ../c
cd ../c
git status -s
git tag v1
git describe
git blame f | sed -n 5,6p
git archive HEAD | tar -t
sqlite3 /tmp/d.db 'create table t(a integer primary key, b text);
    with recursive c(x) as (select 1 union all select x+1 from c where x<5000)
        insert into t select x, printf("%05d", x*7%1000) from c;
    create index i on t(b);
    select count(*), sum(a), max(b) from t where b > "00500";
    select group_concat(a) from t where b = "00007";
    pragma journal_mode=wal; insert into t values (9999, "z"); pragma integrity_check; vacuum;'
sqlite3 :memory: "select json_extract('{\"a\":[1,2,{\"b\":3}]}', '\$.a[2].b'), 0.1+0.2, round(2.5), datetime(0,'unixepoch')"
