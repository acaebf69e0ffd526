-- Work for a Lua interpreter: tables, closures, strings, metatables, coroutines, sorting and floating point.
local rounds = tonumber(arg[1])
local seed = 42
local function random(limit)
  seed = (seed * 16807) % 2147483647
  return seed % limit
end

local Vector = {}
Vector.__index = Vector
Vector.__add = function(a, b) return setmetatable({x = a.x + b.x, y = a.y + b.y}, Vector) end
Vector.__mul = function(a, f) return setmetatable({x = a.x * f, y = a.y * f}, Vector) end
function Vector:norm() return math.sqrt(self.x * self.x + self.y * self.y) end

local function permutations(list, n)
  n = n or #list
  if n <= 1 then
    coroutine.yield(list)
  else
    for i = 1, n do
      list[n], list[i] = list[i], list[n]
      permutations(list, n - 1)
      list[n], list[i] = list[i], list[n]
    end
  end
end

local tasks = {}

function tasks.sorting()
  local items = {}
  for i = 1, 3000 do items[i] = {key = random(1000), position = i} end
  table.sort(items, function(a, b)
    if a.key ~= b.key then return a.key < b.key end
    return a.position < b.position
  end)
  return items[1].position + items[1500].position
end

function tasks.words()
  local parts, counts = {}, {}
  for i = 1, 2000 do parts[i] = string.format("%s%d", ("abcde"):rep(random(3) + 1), random(50)) end
  for word in table.concat(parts, " "):gmatch("%a+%d") do counts[word] = (counts[word] or 0) + 1 end
  local names = {}
  for name, count in pairs(counts) do names[#names + 1] = name:upper():reverse() .. count end
  table.sort(names)
  return table.concat(names, ","):len()
end

function tasks.vectors()
  local at, speed = setmetatable({x = 0.0, y = 0.0}, Vector), setmetatable({x = 1.0, y = 0.5}, Vector)
  local sum = 0.0
  for step = 1, 5000 do
    at = at + speed * (1 / step)
    sum = sum + at:norm()
  end
  return math.floor(sum * 1000)
end

function tasks.permutations()
  local count, sum = 0, 0
  for list in coroutine.wrap(function() permutations({1, 2, 3, 4, 5, 6, 7}) end) do
    count = count + 1
    sum = (sum * 31 + list[1] * 7 + list[4]) % 1000003
  end
  return count + sum
end

function tasks.sieve()
  local composite, sum = {}, 0
  for i = 2, 20000 do
    if not composite[i] then
      sum = sum + i
      for j = i * i, 20000, i do composite[j] = true end
    end
  end
  return sum
end

local digest = 0
for _ = 1, rounds do
  for _, name in ipairs({"sorting", "words", "vectors", "permutations", "sieve"}) do
    digest = (digest * 33 + tasks[name]()) % 4294967291
  end
end
print(digest)
